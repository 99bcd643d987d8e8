"""Films and live cameras: frames in, H.264 out, and one line of JSON per person and frame.

OpenCV reads, because every installation has it. It cannot write H.264; PyAV does (extra `video`).
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import cv2
import numpy as np

from dpose.io import no_native_messages, replacing
from dpose.skeleton import NUM_BODY_JOINTS
from dpose.track import Smoother, Tracker

if TYPE_CHECKING:
    from dpose.predictor import Person, Picture, Predictor

SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".wmv"),
)
USUAL_RATES = (1.0, 240.0)  # frames per second; files with other values hold a placeholder
TIMED_FRAMES = 50  # whose times give the rate of such a file
COMPLETE = 0.9  # share of a film's duration; a film that ends earlier gives a warning
X264 = {"crf": "20", "preset": "veryfast"}
BT709 = 1  # in FFmpeg's numbering of colour spaces, primaries and transfer functions
DIGITS = 5  # decimal places of JSON lines


def is_film(path: str | Path) -> bool:
    """Whether a file is a film, by the end of its name."""
    return Path(path).suffix.lower() in SUFFIXES


def frames(film: str | Path | int) -> Iterator[np.ndarray]:
    """The frames of a film or a camera, each (H, W, 3) uint8 RGB and upright, in constant memory.

    Args:
        film: a file; or the number of a camera, from 0, whose frames end only with an error.
    Raises:
        FileNotFoundError: no such file.
        ValueError: no frame of the file can be decoded.
        OSError: there is no such camera, or it stops.
    Warns:
        UserWarning: the film is shorter than its header says.
    """
    count, reached = 0, 0.0
    with _opened(film) as capture:
        announced = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        duration = announced / max(capture.get(cv2.CAP_PROP_FPS), 1e-9)
        while (image := capture.read()[1]) is not None:  # OpenCV turns it upright
            count, reached = count + 1, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if isinstance(film, int):
        raise OSError(f"camera {film} stopped after {count} frames")
    if count == 0:
        raise ValueError(f"{film} has no frame that can be decoded: damaged, or not a film")
    if count < COMPLETE * announced and reached < COMPLETE * duration:  # both: frames may be unevenly spaced
        warnings.warn(
            f"{film} is damaged: only {reached:.1f} of its {duration:.1f} seconds can be decoded",
            stacklevel=2,
        )


def frame_rate(path: str | Path) -> float:
    """Frames per second of a film; the average, if its frames are not evenly spaced. Raises as `frames`."""
    with _opened(path) as capture:
        rate = capture.get(cv2.CAP_PROP_FPS)
        if USUAL_RATES[0] <= rate <= USUAL_RATES[1]:
            return rate
        times = []  # seconds
        while len(times) < TIMED_FRAMES and capture.read()[0]:
            times.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    if len(times) < 2 or times[-1] <= times[0]:
        raise ValueError(f"{path} does not say how many frames it has per second, and has no two frames")
    return (len(times) - 1) / (times[-1] - times[0])


def frame_count(path: str | Path) -> int:
    """Number of frames by the header of a film, 0 if it does not say; an estimate in some formats."""
    with _opened(path) as capture:
        return max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))


@contextmanager
def _opened(film: str | Path | int) -> Iterator[cv2.VideoCapture]:
    live = isinstance(film, int)
    if not live and not Path(film).is_file():
        raise FileNotFoundError(f"no film at {film}")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # its threads write to stderr at any time
    with no_native_messages():
        capture = cv2.VideoCapture(film) if live else cv2.VideoCapture(str(film), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        if live:
            raise OSError(f"camera {film} cannot be opened: there is none, or another program uses it")
        raise ValueError(f"{film} cannot be decoded: damaged, or not a film that OpenCV reads")
    if live:
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # at most one picture waits meanwhile
    try:
        yield capture
    finally:
        capture.release()


class FilmWriter:
    """Writes frames as H.264 in MP4; a context manager. The file appears when it is complete.

    An odd side is extended by one pixel, as H.264 with subsampled colours (yuv420p) needs even ones.

    Args:
        path: the file, .mp4.
        rate: frames per second.
        size: width and height of the frames, pixels.
    Raises:
        RuntimeError: PyAV is not installed.
        ValueError: another suffix; a rate or size that is not positive; a frame of another shape; no frames.
        FileExistsError, NotADirectoryError: as `dpose.io.check_target`.
    """

    def __init__(self, path: str | Path, rate: float, size: tuple[int, int]) -> None:
        if Path(path).suffix.lower() != ".mp4":
            raise ValueError(f"films are written as .mp4, got {path}")
        if not (rate > 0 and min(size) > 0):
            raise ValueError(f"rate and size of a film must be positive, got {rate} and {size}")
        self.path, self.rate, self.size = Path(path), Fraction(rate).limit_denominator(1001), tuple(size)
        self._av, self._stack = _pyav(), ExitStack()

    def __enter__(self) -> FilmWriter:
        with ExitStack() as stack:
            temporary = stack.enter_context(replacing(self.path))
            options = {"movflags": "+faststart"}  # players need not wait for the whole file
            container = self._av.open(str(temporary), "w", format="mp4", options=options)
            self._container = stack.enter_context(container)
            self._stream = container.add_stream("libx264", rate=self.rate, options=X264)
            self._stream.width, self._stream.height = (side + side % 2 for side in self.size)
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            self._count = 0
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, image: np.ndarray) -> None:
        """Adds a frame (H, W, 3) uint8 RGB."""
        width, height = self.size
        if image.shape != (height, width, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"a frame must be uint8 ({height}, {width}, 3), got {image.dtype} {tuple(image.shape)}"
            )
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        self._encode(frame.reformat(format="yuv420p", dst_colorspace=BT709))
        self._count += 1

    def _finish(self, failure: type[BaseException] | None, *_: Any) -> None:
        """Ends the file before it is closed, unless there was an exception."""
        if failure is None:
            if self._count == 0:
                raise ValueError(f"{self.path} is not written: there are no frames")
            self._encode(None)

    def _encode(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def follow(
    predictor: Predictor,
    film: str | Path | int,
    *,
    tracker: Tracker | None = None,
    smoother: Smoother | None = None,
    focal: float | None = None,
    cam_int: Any = None,
    ahead: int = 8,
) -> Iterator[tuple[float, Picture]]:
    """The frames of a film or a camera with their people, numbered, and smoothed if there is a smoother.

    Args:
        predictor: with a detector.
        film: as for `frames`.
        tracker: None: one with default settings.
        focal, cam_int, ahead: as for `Predictor.stream`.
    Yields:
        Seconds since the first frame of a film, or since the camera was started; and the picture.
    Raises:
        As `frames` and `Predictor`.
    """
    tracker, live, times = tracker or Tracker(), isinstance(film, int), deque()
    rate = None if live else frame_rate(film)
    start = time.monotonic()

    def timed_frames() -> Iterator[np.ndarray]:
        for image in frames(film):
            times.append(time.monotonic() - start)
            yield image

    source = timed_frames() if live else film
    for picture in predictor.stream(source, focal=focal, cam_int=cam_int, ahead=ahead):
        seconds = times.popleft() if live else picture.frame / rate
        people = tracker(picture.people)
        yield seconds, picture._replace(people=smoother(people, seconds) if smoother else people)


def run_camera(
    predictor: Predictor,
    camera: int | str | Path,
    out: TextIO | None = None,
    *,
    on_picture: Callable[[Picture], None] | None = None,
    **options: Any,
) -> int:
    """Writes a line of JSON per person and frame of a live camera, at once (`json_line`).

    Ends quietly on Ctrl-C, at the end of a file, or when the reader of `out` is gone; `out` is closed then.

    Args:
        camera: its number; or a film, which plays the camera as fast as its people are predicted.
        out: None: no lines.
        on_picture: called with every frame and its people, for instance to draw them.
        options: `tracker`, `smoother`, `focal` and `cam_int` of `follow`.
    Returns:
        The number of frames.
    """
    count = 0
    try:
        with closing(follow(predictor, camera, ahead=1, **options)) as pictures:
            for seconds, picture in pictures:
                if out and picture.people:
                    out.write("".join(json_line(person, seconds) + "\n" for person in picture.people))
                    out.flush()
                if on_picture:
                    on_picture(picture)
                count += 1
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        with suppress(BrokenPipeError):
            out.close()  # with what it still holds; Python would complain at its exit
    return count


def json_line(person: Person, seconds: float) -> str:
    """One line of JSON, without its end, for programs that read `dpose predict --stream`.

    Keys: `time` (seconds, see `follow`), `frame` (from 0), `track` (the person's number), `box` (x, y,
    width, height in pixels), `score` (the detector's, or null), `transl` (3, metres, camera frame),
    `global_orient` (3) and `body_pose` (63) in axis-angle, radians, `betas`, `joints` (22 x 3, metres, camera
    frame: x right, y down, z forward), `joints2d` (22 x 2, pixels). Raises ValueError if one is not finite.
    """

    def rounded(values: np.ndarray) -> list:
        return np.round(np.asarray(values, np.float64), DIGITS).tolist()

    line = {
        "time": round(seconds, DIGITS),
        "frame": person.frame,
        "track": person.track,
        "box": rounded(person.box),
        "score": None if person.score is None else round(float(person.score), DIGITS),
        "transl": rounded(person.transl),
        "global_orient": rounded(person.global_orient),
        "body_pose": rounded(person.body_pose),
        "betas": rounded(person.betas),
        "joints": rounded(person.joints[:NUM_BODY_JOINTS]),
        "joints2d": rounded(person.joints2d[:NUM_BODY_JOINTS]),
    }
    return json.dumps(line, allow_nan=False, separators=(",", ":"))


def _pyav() -> Any:
    try:
        import av  # imported here: an optional dependency
    except ModuleNotFoundError:
        raise RuntimeError("writing films needs PyAV, the extra `video`: pip install av") from None
    return av
