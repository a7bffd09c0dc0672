"""What a sweep wants of each run: that it is measured, or only that its network is trained."""

from collections.abc import Iterator
from typing import Any, Protocol

from basicsr.metrics.stated import metrics_in
from basicsr.sweep.plan import Run, Step
from basicsr.sweep.records import Places, State, is_trained, may_continue, state_of, write_record


class Goal(Protocol):
    """What a sweep wants of each run."""

    def state(self, run: Run, places: Places) -> tuple[State, list[str]]:
        """Return whether a run has reached it, and remarks on that."""

    def steps(self, run: Run, places: Places) -> Iterator[tuple[Step, bool]]:
        """Yield the steps that are not done yet, and whether each continues what it finds; asked for one after another."""

    def conclude(self, run: Run, places: Places) -> str:
        """Do what is left when all steps have ended well, and return the result in a few words.

        Raises:
            CheckpointError: what the steps should have left is not there, or nothing can be written.
        """


class Measured:
    """The network is trained and tested, and a record written."""

    def state(self, run: Run, places: Places) -> tuple[State, list[str]]:
        """Return the state of the record."""
        return state_of(run, places)

    def steps(self, run: Run, places: Places) -> Iterator[tuple[Step, bool]]:
        """Yield the training where it has not reached its end, then the evaluation."""
        yield from Trained().steps(run, places)
        yield run.evaluate, False

    def conclude(self, run: Run, places: Places) -> str:
        """Write the record; return its means."""
        return describe_results(write_record(run, places))


class Trained:
    """The network lies in experiments/, as pictures of it need; records stay as they are."""

    def state(self, run: Run, places: Places) -> tuple[State, list[str]]:
        """Return whether training has reached its end."""
        return ("finished" if run.train is None or is_trained(run, places) else "unfinished"), []

    def steps(self, run: Run, places: Places) -> Iterator[tuple[Step, bool]]:
        """Yield the training where it has not reached its end."""
        if run.train is not None and self.state(run, places)[0] != "finished":
            yield run.train, may_continue(run, places)

    def conclude(self, run: Run, places: Places) -> str:
        """Return where the network lies."""
        return f"its network lies in {places.experiment(run) / 'models'}"


def describe_results(record: dict[str, Any]) -> str:
    """Return the means of a record in one line: `Set5 31.770 dB, fidelity 38.20 dB`."""
    metrics = {name: traits for name, traits in metrics_in(record["metrics"]).items() if traits.in_plots}
    parts = []
    for dataset, means in record["metrics"]["datasets"].items():
        known = {name: means[name] for name in metrics if means.get(name) is not None}
        texts = [
            ("" if name == "psnr" else f"{metrics[name].label} ") + metrics[name].text(value)
            for name, value in known.items()
        ]
        parts.append(f"{dataset} {', '.join(texts)}")
    return "; ".join(parts)
