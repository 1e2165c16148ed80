"""The metrics by name: what each needs, and one object that measures a pair of clips by several."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mg.files import sha256_of_file
from mg.metrics.flolpips import Flow, dis_flow, flolpips, load_pwcnet, pwcnet_flow
from mg.metrics.frames import checked_pair
from mg.metrics.i3d import (
    MIN_I3D_FRAMES,
    frechet_distance,
    i3d_of_pair,
    i3d_weights_path,
    kernel_distance,
    load_i3d,
)
from mg.metrics.lpips import load_lpips, lpips, lpips_weights_path
from mg.metrics.ms_ssim import ms_ssim
from mg.metrics.protocol import MetricSettings
from mg.metrics.psnr import psnr
from mg.metrics.ssim import ssim
from mg.metrics.temporal import TEMPORAL_FIGURES, temporal_figures
from mg.metrics.vmaf import VMAF_MODEL, ffmpeg_version, vmaf, xpsnr

if TYPE_CHECKING:
    from mg.models.perceptual import LPIPS

__all__ = [
    "METRICS",
    "SET_METRICS",
    "Measures",
    "MetricOptions",
    "check_set_size",
    "figures_of_set",
    "parse_metrics",
]

# Figures of one pair of clips: an array with a number per frame (or per last frames), or one of no
# axes for the whole clip.
Values = dict[str, np.ndarray]
Measure = Callable[[np.ndarray, np.ndarray], Values]


@dataclasses.dataclass(frozen=True)
class MetricOptions:
    """What metrics need beside the protocol; none of it changes a figure.

    Args:
        batch_size: frames, or windows of frames, that go through a network together.
        lpips_path: weights of LPIPS in place of those that were fetched.
        i3d_path: weights of I3D in place of those that were fetched.
        pwcnet_path: weights of PWC-Net, which FloLPIPS needs.
    """

    batch_size: int = 8
    lpips_path: str | None = None
    i3d_path: str | None = None
    pwcnet_path: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size}; expected 1 or more")


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        build: returns what measures a pair of clips, and what it measures by: the file of its
            weights, the version of a program, or None.
        figures: that it gives.
        min_frames: that a clip needs.
        needs_network: whether MindSpore is needed.
        in_all: whether "all" has it; not where a file of the user's is needed.
    """

    build: Callable[[MetricSettings, MetricOptions], tuple[Measure, Path | str | None]]
    figures: tuple[str, ...]
    min_frames: int = 1
    needs_network: bool = False
    in_all: bool = True


class Measures:
    """Measures pairs of clips by several metrics; networks are loaded once, when it is made.

    Args:
        names: of `METRICS`, as `parse_metrics` gives them.
        settings: of the protocol.
        options: see there.

    Raises:
        ValueError: an unknown name, or the program of one is missing.
        FileNotFoundError: weights are missing; the message has the command that fetches them.
    """

    def __init__(
        self, names: Sequence[str], settings: MetricSettings, options: MetricOptions | None = None
    ) -> None:
        _check_names(names)
        options = options or MetricOptions()
        self.names = list(names)
        self._measures, self._weights = {}, {}
        for name in names:
            self._measures[name], source = METRICS[name].build(settings, options)
            if source is not None:
                is_file = isinstance(source, Path)
                self._weights[name] = sha256_of_file(source) if is_file else source

    def weights(self) -> dict[str, str]:
        """Return the SHA-256 of each metric's weights, or its program's version, by metric."""
        return dict(self._weights)

    def __call__(
        self, reference: np.ndarray, generated: np.ndarray, names: Sequence[str] | None = None
    ) -> tuple[Values, dict[str, str]]:
        """Return the figures of a pair of clips, and why metrics had to be left out, by metric.

        Args:
            reference: frames (T, H, W, 3), uint8, or floats in [0, 255].
            generated: frames of the same shape and kind.
            names: metrics to measure; None takes all.

        Raises:
            ValueError: the clips cannot be compared, or hold NaN or infinity.
        """
        num_frames, _, _ = checked_pair(reference, generated)
        for which, frames in (("original", reference), ("generated video", generated)):
            _check_finite(which, frames)
        values: Values = {}
        left_out: dict[str, str] = {}
        for name in self.names if names is None else names:
            least = METRICS[name].min_frames
            if num_frames < least:
                left_out[name] = f"{name} needs at least {least} frames, here are {num_frames}"
                continue
            try:
                values |= self._measures[name](reference, generated)
            except ValueError as error:
                left_out[name] = str(error)
        return values, left_out


def parse_metrics(text: str | Sequence[str], settings: MetricSettings) -> list[str]:
    """Return the metrics that a list of names, or a text with commas between, stands for.

    "lpips" stands for the backbone that the protocol names, a figure for the metric that gives it,
    "all" for all metrics of pairs but FloLPIPS, whose weights are the user's. Figures of sets come
    last, after the metric that they need.

    Raises:
        ValueError: an unknown name, or none.
    """
    given = text.split(",") if isinstance(text, str) else text
    names = [name.strip() for name in given if name.strip()]
    if "all" in names:
        return [name for name, metric in METRICS.items() if metric.in_all]
    names = [f"lpips_{settings.lpips_net}" if name == "lpips" else name for name in names]
    names = [ALIASES.get(name, name) for name in names]
    of_set = [name for name in names if name in SET_METRICS]
    names = [name for name in names if name not in SET_METRICS] + ["i3d"] * bool(of_set)
    _check_names(names)
    return list(dict.fromkeys(names + of_set))


def figures_of_set(
    names: Sequence[str], values: Sequence[Values], *, min_clips: int, allow_few: bool = False
) -> dict[str, float]:
    """Return the figures of a set of pairs by name.

    Args:
        names: metrics, from `parse_metrics`; those of pairs are passed over.
        values: of all pairs, from `Measures`.
        min_clips: clips below which the figures say little (the protocol has it).
        allow_few: whether to give them all the same.

    Raises:
        ValueError: too few clips.
    """
    features = [each[FEATURES] for each in values if FEATURES in each]
    wanted = [name for name in names if name in SET_METRICS]
    if not wanted:
        return {}
    check_set_size(names, len(features), min_clips=min_clips, allow_few=allow_few)
    real, generated = np.stack(features, axis=1)  # (N, num_classes) each
    return {name: SET_METRICS[name](real, generated) for name in wanted}


def check_set_size(
    names: Sequence[str], num_clips: int, *, min_clips: int, allow_few: bool
) -> None:
    """Raise ValueError if a figure of a set is asked for of too few clips."""
    wanted = [name.upper() for name in names if name in SET_METRICS]
    least = 2 if allow_few else min_clips
    if wanted and num_clips < least:
        raise ValueError(
            f"{' and '.join(wanted)} of {num_clips} clips would say more about their number than "
            f"about the videos; give at least {least}"
            + ("" if allow_few else ", or add --allow_few, or measure the paired i3d_distance")
        )


def _check_names(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        raise ValueError(
            f"unknown metric {', '.join(unknown) or '(none given)'}; there are "
            f"{', '.join([*METRICS, *SET_METRICS])}, lpips (the protocol's backbone) and all"
        )


def _check_finite(which: str, frames: np.ndarray) -> None:
    if frames.dtype == np.uint8:
        return
    for index, frame in enumerate(frames):
        if not np.isfinite(frame).all():
            raise ValueError(f"frame {index} of the {which} holds NaN or infinity")


def _build_psnr(settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, None]:
    cap = np.inf if settings.psnr_cap is None else settings.psnr_cap
    return lambda x, y: {"psnr": np.minimum(psnr(x, y), cap)}, None


def _build_ssim(settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, None]:
    return lambda x, y: {"ssim": ssim(x, y, window=settings.ssim_window)}, None


def _build_ms_ssim(_settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, None]:
    return lambda x, y: {"ms_ssim": ms_ssim(x, y)}, None


def _build_temporal(_settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, None]:
    return temporal_figures, None


def _flolpips_measure(name: str, flow_of: Flow, lpips_network: "LPIPS") -> Measure:
    from mg.models.perceptual import LPIPSMaps

    maps = LPIPSMaps(lpips_network)
    return lambda x, y: {name: flolpips(x, y, maps=maps, flow_of=flow_of)}


def _build_flolpips(_settings: MetricSettings, options: MetricOptions) -> tuple[Measure, Path]:
    network = load_pwcnet(options.pwcnet_path)
    measure = _flolpips_measure("flolpips", pwcnet_flow(network), load_lpips("alex"))
    return measure, Path(options.pwcnet_path)


def _build_flolpips_dis(_settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, Path]:
    measure = _flolpips_measure("flolpips_dis", dis_flow(), load_lpips("alex"))
    return measure, lpips_weights_path("alex")


def _build_vmaf(_settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, str]:
    return lambda x, y: {"vmaf": vmaf(x, y)}, f"{VMAF_MODEL}, {ffmpeg_version()}"


def _build_xpsnr(_settings: MetricSettings, _options: MetricOptions) -> tuple[Measure, str]:
    return lambda x, y: {"xpsnr": xpsnr(x, y)}, ffmpeg_version()


def _build_i3d(_settings: MetricSettings, options: MetricOptions) -> tuple[Measure, Path]:
    path = i3d_weights_path() if options.i3d_path is None else Path(options.i3d_path)
    network = load_i3d(path)

    def measure(x: np.ndarray, y: np.ndarray) -> Values:
        distance, features = i3d_of_pair(x, y, network)
        return {"i3d_distance": np.array(distance), FEATURES: features}

    return measure, path


def _lpips_builder(net: str) -> Callable[[MetricSettings, MetricOptions], tuple[Measure, Path]]:
    def build(settings: MetricSettings, options: MetricOptions) -> tuple[Measure, Path]:
        is_own = options.lpips_path is not None and net == settings.lpips_net
        path = Path(options.lpips_path) if is_own else lpips_weights_path(net)
        network = load_lpips(net, path)

        def measure(x: np.ndarray, y: np.ndarray) -> Values:
            return {f"lpips_{net}": lpips(x, y, network=network, batch_size=options.batch_size)}

        return measure, path

    return build


METRICS = {
    "psnr": Metric(_build_psnr, ("psnr",)),
    "ssim": Metric(_build_ssim, ("ssim",)),
    "ms_ssim": Metric(_build_ms_ssim, ("ms_ssim",)),
    "lpips_vgg": Metric(_lpips_builder("vgg"), ("lpips_vgg",), needs_network=True),
    "lpips_alex": Metric(_lpips_builder("alex"), ("lpips_alex",), needs_network=True),
    "temporal": Metric(_build_temporal, TEMPORAL_FIGURES, min_frames=2),
    "vmaf": Metric(_build_vmaf, ("vmaf",)),
    "xpsnr": Metric(_build_xpsnr, ("xpsnr",)),
    "flolpips": Metric(
        _build_flolpips, ("flolpips",), min_frames=2, needs_network=True, in_all=False
    ),
    "flolpips_dis": Metric(
        _build_flolpips_dis, ("flolpips_dis",), min_frames=2, needs_network=True
    ),
    "i3d": Metric(_build_i3d, ("i3d_distance",), min_frames=MIN_I3D_FRAMES, needs_network=True),
}
# Figures of a whole set of pairs, made of the features that `i3d` leaves beside its figure.
SET_METRICS = {"fvd": frechet_distance, "kvd": kernel_distance}
FEATURES = "i3d_features"  # (2, num_classes): of the original and of the generated video
# What else a metric may be called: the figures of one that gives several.
ALIASES = {
    figure: name for name, metric in METRICS.items() for figure in metric.figures if figure != name
}
