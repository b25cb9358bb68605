"""``limbeck train`` and ``limbeck distill``: a run with its progress, and the table at its end."""

from __future__ import annotations

from limbeck.cli.output import Output
from limbeck.config import DistillSettings, TrainSettings


def train(settings: TrainSettings | DistillSettings, output: Output) -> None:
    """Do the run that the settings describe."""
    # The run checks this too; here it is said at once, without the seconds that importing torch takes.
    settings.check_networks()

    from limbeck.chain import run_with_assistants
    from limbeck.cli.progress import Progress
    from limbeck.cli.summary import figures, footer
    from limbeck.job import job_of

    with Progress(output) as progress:
        done = run_with_assistants(job_of(settings), callbacks=[progress], say=output.say)
    value = {**done.result.as_dict(), "folder": None if done.folder is None else str(done.folder)}
    output.result(value, lambda: figures(done.result), lambda: footer(done.result, done.folder))
