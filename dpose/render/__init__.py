"""Meshes to images by ray casting: face ids, depth, body-part labels and shaded overlays.

One backend, NVIDIA Warp, on CPU and CUDA alike: no display, no OpenGL. Cameras are pinholes in the OpenCV
frame (x right, y down, z forward) and pixels are continuous, pixel (i, j) having its centre at
(j + 0.5, i + 0.5), so a crop is rendered in its true perspective by giving its own intrinsics
(`dpose.camera.crop_intrinsics`). Part labels supervise the segmentation decoder (paper section 3.5); depth of
the scene is the data set's own and does not come from here.
"""

from dpose.render.raycast import render_mesh, render_parts, shade

__all__ = ["render_mesh", "render_parts", "shade"]
