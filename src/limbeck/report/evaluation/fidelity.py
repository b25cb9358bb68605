"""How far the students follow their teacher."""

from __future__ import annotations

from limbeck.report.evaluation._tables import Cell, Column, figure, note, table
from limbeck.report.evaluation._words import in_order, percent
from limbeck.report.evaluation.record import Consistency, Fidelity, Record
from limbeck.report.sections import Section

_COLUMNS = (
    Column("student", "Its short name", number=False),
    Column("agreement", "Share of images for which student and teacher say the same"),
    Column("where it is wrong", "The same among the images that the teacher gets wrong"),
    Column("KL", "Mean KL(teacher ‖ student), in nats"),
    Column("KL reversed", "Mean KL(student ‖ teacher), in nats"),
    Column("CKA", "Linear CKA of the embeddings, without the bias of few samples; 1 is equal up to a rotation"),
    Column(
        "correlation",
        "Mean |difference| of the correlations between classes: Pearson, all images, two different classes",
    ),
    Column("authors' 2024", "The same by the procedure of the ICD authors' first code"),
    Column("authors' 2025", "The same by the procedure of the ICD authors' later code"),
    Column("asymmetry of logits", "‖L − Lᵀ‖ / ‖L + Lᵀ‖ of the similarities that ICD's invariance term makes symmetric"),
    Column("asymmetry of embeddings", "The same between embeddings, after a rotation"),
    Column("kept", "Images that both get right"),
    Column("lost", "Images that the teacher alone gets right"),
    Column("gained", "Images that the student alone gets right"),
    Column("none", "Images that neither gets right"),
)


def fidelity(record: Record, prefix: str) -> list[Section]:
    """A table with a row a student."""
    found = record.fidelity
    if not found:
        return []
    shown = in_order(record, found)
    rows = [_row(who, found[who]) for who in shown]
    first = found[shown[0]]
    procedures = (first.correlation, first.correlation_paper_2024, first.correlation_paper_2025)
    words = f"Differences of correlations: {'; '.join(each.procedure for each in procedures)}."
    lead = "What the student does as its teacher does, beyond being right as often. Low KL and high CKA are close."
    return [
        Section(
            f"{prefix}-fidelity",
            "Fidelity to the teacher",
            html=table("Fidelity to the teacher", _COLUMNS, rows) + note(words),
            lead=lead,
        )
    ]


def _row(who: str, found: Fidelity) -> list[Cell]:
    # A record of few images has none without its bias.
    cka = found.cka_embedding if found.cka_embedding_debiased is None else found.cka_embedding_debiased
    counts = (found.kept, found.lost, found.gained, found.both_wrong)
    return [
        Cell(who),
        figure(found.agreement, percent),
        figure(found.agreement_where_wrong, percent),
        *(figure(value, _three) for value in (found.kl, found.reverse_kl, cka, found.correlation.mean)),
        *(figure(each.mean, _three) for each in (found.correlation_paper_2024, found.correlation_paper_2025)),
        *(figure(_asymmetry(each), _three) for each in (found.consistency_logits, found.consistency_embedding)),
        *(figure(count, lambda value: f"{value:,.0f}") for count in counts),
    ]


def _asymmetry(found: Consistency | None) -> float | None:
    return None if found is None else found.asymmetry


def _three(value: float) -> str:
    return f"{value:.3f}"
