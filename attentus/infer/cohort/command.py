"""What the command in charge of a cohort does: see what is to be done, have it done, keep the book."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from attentus.errors import BadFile, BadInput, did_you_mean
from attentus.infer.cohort.book import Book
from attentus.infer.cohort.crew import spread
from attentus.infer.cohort.pipeline import Pipeline, Stages
from attentus.infer.cohort.stages import Done, Order, Wanted, fetch, store
from attentus.io.atomic import sweep
from attentus.io.dicom_write import Dicom
from attentus.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    from attentus.infer.cohort.crew import Crew
    from attentus.infer.cohort.scans import Scan
    from attentus.infer.cohort.stages import Segmenter
    from attentus.types import Prediction

IN_FLIGHT = 1 << 30
"""Bytes of voxels that may wait before and behind the net."""
ABANDONED = 60.0
"""Seconds after which nobody writes a temporary file any more that has not grown."""


def predict_cohort(
    model: Segmenter,
    scans: Sequence[Scan],
    *,
    clean: bool = True,
    probabilities: bool = False,
    attention: bool = False,
    max_ram: int | None = None,
    dicom: Dicom | None = None,
    overwrite: bool = False,
    resume: bool = False,
    crew: Crew | None = None,
    in_flight: int = IN_FLIGHT,
    progress: Progress | None = None,
) -> dict[str, Done | str]:
    """Predict scans and write their labels, and labels.json, which names them and says how they were made, beside them.

    While one scan is predicted, the next ones are read and the last ones written. A scan that fails, for whatever
    reason, is listed and does not stop the others. When interrupted, what has been predicted is written and remembered.
    A region that holds others is named with all their values.

    Args:
        model: whose labels are written.
        scans: see `find_scans`.
        clean: post-process as the model's recipe says.
        probabilities: also write NAME_probabilities.nii.gz, background first.
        attention: also write NAME_attention_GATE.nii.gz for every gate.
        max_ram: see `Model.predict`.
        dicom: how results that are DICOM are made; the recipe's codes and the model's fingerprint are filled in.
        overwrite: whether existing results may be replaced.
        resume: leave results alone that are there, unchanged, of the same model, options and scan; do the others. Files
            that labels.json does not list as results are only replaced with `overwrite`.
        crew: Dask workers that do it; None does it here.
        in_flight: bytes of voxels that may wait to be predicted or written, together; a larger scan goes alone.
        progress: shows the scans, and the windows of the one under way.

    Returns:
        Scan name to what was done, or to a message if it failed.

    Raises:
        BadInput: a cluster that cannot be reached or used, or codes of no structure; the message says why.
        MissingExtra: a crew, and the extra `cluster` is not installed.
    """
    wanted = Wanted(clean, probabilities, attention, max_ram, _dicom(model, scans, dicom))
    books = {folder: Book(folder, model, wanted) for folder in {scan.result.parent for scan in scans}}
    ended: dict[str, Done | str] = {}
    orders: list[Order] = []
    for scan in scans:
        plan = _plan(scan, books[scan.result.parent], overwrite=overwrite, resume=resume)
        if isinstance(plan, Order):
            orders.append(plan)
        else:
            ended[scan.name] = plan
    for folder, book in books.items():
        mine = [order.scan for order in orders if order.scan.result.parent == folder]
        book.begin(mine)
        sweep([book.file, *(scan.result for scan in mine)], idle=ABANDONED)
    progress = progress or Silent()
    if crew is None or crew.alone or not orders:
        work = _here(model, orders, wanted, books, limit=in_flight, progress=progress)
    else:
        work = spread(crew, model, orders, books, wanted=wanted, progress=progress)
    with progress.task("predicting", len(scans), len(ended)) as task, closing(work):
        for scan, outcome in work:
            ended[scan.name] = outcome
            if isinstance(outcome, str):
                books[scan.result.parent].fail(scan, outcome)
            task.advance(note=scan.name)
    return {scan.name: ended[scan.name] for scan in scans}


def _dicom(model: Segmenter, scans: Sequence[Scan], dicom: Dicom | None) -> Dicom | None:
    """How results become DICOM; None if they do not.

    Raises:
        BadInput: codes of structures that the model does not have.
    """
    if not any(scan.is_dicom for scan in scans):
        return None
    dicom = dicom or Dicom()
    for name in dicom.codes:
        if name not in model.names:
            raise BadInput(f"There are codes for '{name}', which is no structure.{did_you_mean(name, model.names)}")
    codes = {**model.recipe.infer.codes, **dicom.codes}
    return replace(dicom, codes=codes, fingerprint=model.fingerprint)


def _plan(scan: Scan, book: Book, *, overwrite: bool, resume: bool) -> Order | Done | str:
    """What is to be done with a scan, or that it is done, or why it cannot be."""
    found = book.done(scan) if resume else None
    if found is not None:
        return found
    replace = overwrite or (resume and book.owns(scan))
    if scan.result.exists() and not replace:
        problem = f"exists already{', and labels.json does not list it as a result' if resume else ''}"
        fix = "Allow overwriting (--overwrite), or choose another folder."
        return str(BadFile(scan.result, problem, fix if resume else f"Keep what is complete (--resume). {fix}"))
    return Order(scan, replace)


def _here(
    model: Segmenter,
    orders: Sequence[Order],
    wanted: Wanted,
    books: Mapping[Path, Book],
    *,
    limit: int,
    progress: Progress,
) -> Generator[tuple[Scan, Done | str], None, None]:
    """Do all in this process."""

    def keep(order: Order, prediction: Prediction) -> Done:
        book = books[order.scan.result.parent]
        book.open()
        done = store(order, prediction, wanted)
        book.enter(order.scan, done)
        return done

    stages = Stages(
        fetch=lambda order: fetch(order.scan, model.recipe),
        predict=lambda volume: model.predict(volume, **wanted.of_model(), progress=progress),
        store=keep,
    )
    return Pipeline(orders, stages, limit).run()
