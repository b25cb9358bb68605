"""How far the students follow their teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from limbeck.evaluate.fidelity import Fidelity
from limbeck.evaluate.record import Evaluation
from limbeck.evaluate.similarity import Consistency
from limbeck.report.evaluation._words import in_order, percent, three
from limbeck.report.sections import Section
from limbeck.report.sortable import Cell, Column, figure, note, table

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


def fidelity(evaluation: Evaluation, prefix: str, numbers: Mapping[str, int]) -> list[Section]:
    """A table with a row a student."""
    found = evaluation.fidelity
    if not found:
        return []
    shown = in_order(evaluation, found)
    rows = [_row(who, found[who]) for who in shown]
    first = found[shown[0]]
    procedures = (first.correlation, first.correlation_paper_2024, first.correlation_paper_2025)
    words = f"Differences of correlations: {'; '.join(each.procedure for each in procedures)}."
    lead = "What the student does as its teacher does, beyond being right as often. Low KL and high CKA are close."
    return [
        Section(
            f"{prefix}-fidelity",
            "Fidelity to the teacher",
            html=table("Fidelity to the teacher", _COLUMNS, rows) + note(words) + _stages(found, shown),
            lead=lead,
        )
    ]


def _row(who: str, found: Fidelity) -> list[Cell]:
    # A record of few images has none without its bias.
    cka = _either(found.cka_embedding_debiased, found.cka_embedding)
    counts = (found.kept, found.lost, found.gained, found.both_wrong)
    return [
        Cell(who),
        figure(found.agreement, percent),
        figure(found.agreement_where_wrong, percent),
        *(figure(value, three) for value in (found.kl, found.reverse_kl, cka, found.correlation.mean)),
        *(figure(each.mean, three) for each in (found.correlation_paper_2024, found.correlation_paper_2025)),
        *(figure(_asymmetry(each), three) for each in (found.consistency_logits, found.consistency_embedding)),
        *(figure(count, lambda value: f"{value:,.0f}") for count in counts),
    ]


def _asymmetry(found: Consistency | None) -> float | None:
    return None if found is None else found.asymmetry


def _either(first: float | None, second: float | None) -> float | None:
    return second if first is None else first


def _stages(found: Mapping[str, Fidelity], shown: Sequence[str]) -> str:
    """CKA of each student's stage (a row) and each of the teacher's (a column); nothing where no stages were compared."""
    known = {
        who: {(each.student, each.teacher): _either(each.debiased, each.cka) for each in found[who].cka_stages}
        for who in shown
    }
    theirs = dict.fromkeys(teacher for pairs in known.values() for _, teacher in pairs)
    rows = [
        [Cell(f"{who}, {own}"), *(figure(pairs.get((own, teacher)), three) for teacher in theirs)]
        for who, pairs in known.items()
        for own in dict.fromkeys(student for student, _ in pairs)
    ]
    if not rows:
        return ""
    columns = [Column("student's stage", "The student and the layer's path", number=False)]
    columns += [Column(f"teacher's {name}", f"CKA with the teacher's {name}; 1 is the most") for name in theirs]
    words = "Linear CKA of the stages, each map averaged over its positions."
    body = table("CKA by stage", columns, rows) + note(words)
    return f"<details><summary>CKA by stage</summary>\n{body}</details>"
