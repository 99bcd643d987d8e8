"""Figures of the notebooks and the book. They need no network, and no display.

Importing this package imports neither matplotlib nor plotly nor IPython; the functions do.
"""

from dpose.figures.architecture import network_diagram
from dpose.figures.colours import (
    BACKGROUND,
    INK,
    MESH_COLOURS,
    colour_depth,
    colour_parts,
    colour_values,
    part_palette,
)
from dpose.figures.curves import label_ends, loss_curves, read_log, style_axis, validation_curves
from dpose.figures.meshes import decimate, mesh_figure, plotly_html
from dpose.figures.parameters import check_parameters
from dpose.figures.pictures import (
    PREDICTION_TITLES,
    attention_overlay,
    contact_sheet,
    draw_mesh,
    overlay,
    picture_block,
    picture_grid,
    prediction_pictures,
    to_picture,
)
from dpose.figures.tables import html_table, show_source
from dpose.figures.text import NBSP, listed, percent, power_of_ten, signed, unbroken
from dpose.figures.viewer import body_viewer
