"""scheduler_config.json, as diffusers writes it beside a generator: read and written."""

import math
from collections.abc import Mapping
from typing import Any

from mg.flow.noise_schedule import NoiseSchedule
from mg.flow.schedulers import DDIM, DPM, FlowEuler, Scheduler

__all__ = [
    "SCHEDULER_CLASSES",
    "build_scheduler",
    "diffusion_config",
    "flow_config",
    "noise_schedule",
    "predicted_by",
    "with_schedule",
]

SCHEDULER_CLASSES = {
    "CogVideoXDDIMScheduler": DDIM,
    "CogVideoXDPMScheduler": DPM,
    "FlowMatchEulerDiscreteScheduler": FlowEuler,
}

# diffusers' names of what a network predicts.
PREDICTION_TYPES = {"v_prediction": "v", "epsilon": "noise", "sample": "data"}

# Fields that change the steps and have one value that is implemented here. What a config leaves
# out has diffusers' default, which is this value but for the first two.
DIFFUSION_FIELDS = {
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "trailing",
    "trained_betas": None,
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}
CLOCK_FIELDS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "rescale_betas_zero_snr",
    "snr_shift_scale",
)
FLOW_FIELDS = {
    "use_dynamic_shifting": False,
    "invert_sigmas": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "stochastic_sampling": False,
}


def build_scheduler(config: Mapping[str, Any], num_steps: int) -> Scheduler:
    """Return the scheduler that a config describes.

    Args:
        config: fields of scheduler_config.json; `_class_name` says which one it is.
        num_steps: how many steps to take.

    Raises:
        ValueError: an unknown class, or a value that is not implemented.
    """
    name = config.get("_class_name")
    if name not in SCHEDULER_CLASSES:
        raise ValueError(
            f"a scheduler of class {name!r} is not known; known are {', '.join(SCHEDULER_CLASSES)}"
        )
    if SCHEDULER_CLASSES[name] is FlowEuler:
        _check_fixed(config, FLOW_FIELDS)
        _check_fixed({"num_train_timesteps": 1000, **config}, {"num_train_timesteps": 1000})
        return FlowEuler(num_steps, shift=_number(config, "shift", 1.0))
    return SCHEDULER_CLASSES[name](noise_schedule(config), num_steps, _prediction(config))


def predicted_by(config: Mapping[str, Any] | None, own: str) -> tuple[str, NoiseSchedule | None]:
    """Return what a network predicts, one of `PREDICTIONS`, and on which clock.

    The clock is None on the straight path, and where nothing says which it is.

    Args:
        config: fields of the scheduler_config.json beside the network; None where there is none.
        own: what networks of its family predict where no scheduler says otherwise.

    Raises:
        ValueError: a prediction, or a clock, that is not implemented.
    """
    if config is None:
        return own, None
    if SCHEDULER_CLASSES.get(config.get("_class_name")) is FlowEuler:
        return ("velocity" if own == "velocity" else "flow"), None
    return _prediction(config), noise_schedule(config)


def _prediction(config: Mapping[str, Any]) -> str:
    """Return what a scheduler of CogVideoX takes for the network's prediction."""
    name = config.get("prediction_type", "epsilon")
    if name not in PREDICTION_TYPES:
        raise ValueError(f"prediction_type={name!r}; expected one of {', '.join(PREDICTION_TYPES)}")
    if name == "epsilon" and config.get("rescale_betas_zero_snr", False):
        raise ValueError(
            "prediction_type='epsilon' with rescale_betas_zero_snr=True: the last step is pure "
            "noise, of which a prediction of the noise tells nothing about the data; take "
            "prediction_type='v_prediction', or rescale_betas_zero_snr=False"
        )
    return PREDICTION_TYPES[name]


def noise_schedule(config: Mapping[str, Any]) -> NoiseSchedule:
    """Return the clock of a scheduler of CogVideoX.

    Args:
        config: fields of scheduler_config.json.

    Raises:
        ValueError: a value that is not implemented.
    """
    _check_fixed(config, DIFFUSION_FIELDS)
    return NoiseSchedule(
        num_steps=config.get("num_train_timesteps", 1000),
        beta_start=_number(config, "beta_start", 0.00085),
        beta_end=_number(config, "beta_end", 0.012),
        snr_shift_scale=_number(config, "snr_shift_scale", 3.0),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


def diffusion_config(
    schedule: NoiseSchedule, *, prediction: str = "v", class_name: str = "CogVideoXDDIMScheduler"
) -> dict[str, Any]:
    """Return the fields of scheduler_config.json that `build_scheduler` reads back."""
    names = {ours: theirs for theirs, ours in PREDICTION_TYPES.items()}
    return {
        "_class_name": class_name,
        "num_train_timesteps": schedule.num_steps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "prediction_type": names[prediction],
        "rescale_betas_zero_snr": schedule.zero_terminal_snr,
        "snr_shift_scale": schedule.snr_shift_scale,
        **DIFFUSION_FIELDS,
    }


def with_schedule(config: Mapping[str, Any], schedule: NoiseSchedule) -> dict[str, Any]:
    """Return the fields of a scheduler of CogVideoX with another clock."""
    stated = diffusion_config(schedule)
    clock = {name: stated[name] for name in CLOCK_FIELDS}
    return {**config, **clock}


def flow_config(shift: float) -> dict[str, Any]:
    """Return the fields of scheduler_config.json of a flow; `build_scheduler` reads them back."""
    return {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "num_train_timesteps": 1000,
        "shift": shift,
        **FLOW_FIELDS,
    }


def _check_fixed(config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise ValueError(
                f"scheduler: {name}={config[name]!r} is not implemented; expected {value!r}"
            )


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"scheduler: {name}={value!r}; expected a number")
    return float(value)
