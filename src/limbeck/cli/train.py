"""``limbeck train`` and ``limbeck distill``: a run with its progress, and the table at its end."""

from __future__ import annotations

from limbeck.cli.output import Output
from limbeck.config import DistillSettings, TrainSettings
from limbeck.errors import SettingError

_NETWORKS = {"model": "resnet8x4", "teacher": "resnet32x4@teacher.safetensors", "student": "resnet8x4"}


def train(settings: TrainSettings | DistillSettings, output: Output) -> None:
    """Do the run that the settings describe."""
    _check_named(settings)

    from limbeck.cli.progress import Progress
    from limbeck.cli.summary import figures, footer
    from limbeck.distillation import run
    from limbeck.job import job_of

    with Progress(output) as progress:
        done = run(job_of(settings), callbacks=[progress], say=output.say)
    value = {**done.result.as_dict(), "folder": None if done.folder is None else str(done.folder)}
    output.result(value, lambda: figures(done.result), lambda: footer(done.result, done.folder))


def _check_named(settings: TrainSettings | DistillSettings) -> None:
    # The run checks this too; here it is said at once, without the seconds that importing torch takes.
    for name, example in _NETWORKS.items():
        if name in type(settings).model_fields and not getattr(settings, name):
            raise SettingError(
                f"{name} is not given; name a network, as in --{name} {example} ('limbeck list models')."
            )
