"""The data of a run, of whatever kind, and the streams of batches that come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator

from limbeck.back_translation import back_translated, parse_back_translation
from limbeck.budget import check_budget
from limbeck.caching import check_asked_for
from limbeck.config import RunSettings
from limbeck.data import ImageData
from limbeck.data.search import SearchCorpus, SearchData, search_of, told
from limbeck.data.text import TextData, TokenData, text_of
from limbeck.errors import SettingError
from limbeck.feeds import Feeds, check_image_settings, image_feeds, loader_feeds, read_data
from limbeck.job import Job, Loaders, plan_of
from limbeck.servers import parse_server

Say = Callable[[str], None]

RunData = ImageData | TokenData | SearchCorpus | Loaders
"""Data that is read and, where it is text or a collection, made tokens."""


def feeds_of(data: RunData, settings: RunSettings, device: torch.device) -> Feeds:
    """The streams of batches that these settings make of the data. Raises LimbeckError where they do not fit it."""
    if isinstance(data, Loaders):
        return loader_feeds(data.train, data.validation, data.test, settings, device)
    if isinstance(data, TokenData):
        from limbeck.text_feeds import text_feeds

        return text_feeds(data, settings, device)
    if isinstance(data, SearchCorpus):
        from limbeck.search_feeds import search_feeds

        return search_feeds(data, settings, device)
    return image_feeds(data, settings, device)


def data_of(jobs: Sequence[Job], accelerator: Accelerator, say: Say) -> RunData:
    """The data of the first job, read and, where it is text or a collection, as tokens of the networks of all jobs.

    Raises:
        LimbeckError: what is wrong with the data, or with a setting that is for data of another kind.
    """
    job = jobs[0]
    data, budget = job.data, job.distill.teacher_budget
    check_asked_for(job.distill)
    if isinstance(data, Loaders):
        check_budget(job.distill, loader=True)
        return data
    if isinstance(data, TextData) or (data is None and text_of(job.settings.data) is not None):
        return _text(jobs, accelerator, say)
    if isinstance(data, SearchData) or (data is None and search_of(job.settings.data) is not None):
        return _search(jobs, accelerator, say)
    check_budget(job.distill, loader=False)
    check_image_settings(job.settings)
    if isinstance(data, ImageData):
        return data if budget is None else data.limited(budget)
    settings = job.settings if budget is None else job.settings.model_copy(update={"train_limit": budget})
    # The first process downloads what is missing; the others read it from the disk then.
    with accelerator.main_process_first():
        return read_data(settings)


def _text(jobs: Sequence[Job], accelerator: Accelerator, say: Say) -> TokenData:
    from limbeck.served import check_served, with_answers
    from limbeck.text_feeds import check_text_settings, read_text, tokens_of

    job = jobs[0]
    for each in jobs:
        check_text_settings(each.settings)
    check_served(jobs)
    with accelerator.main_process_first():
        text = job.data if isinstance(job.data, TextData) else read_text(job.settings)
    assert text is not None
    text = with_answers(job, text, say)
    if job.settings.back_translation is not None:
        asked = parse_back_translation(job.settings.back_translation)
        with accelerator.main_process_first():
            text = back_translated(text, asked, job.settings.max_length, accelerator.device, say)
    teachers = [] if parse_server(job.teacher) is not None else [job.teacher]
    return tokens_of(text, job.settings, [*teachers, *(each.student for each in jobs)])


def _search(jobs: Sequence[Job], accelerator: Accelerator, say: Callable[[str], None]) -> SearchCorpus:
    from limbeck.search_feeds import check_search_settings, read_search, search_corpus

    job = jobs[0]
    for each in jobs:
        check_search_settings(each.settings, plan_of(each).needs)
    if job.settings.mining == "teacher" and job.teacher is None:
        raise SettingError(
            "mining=teacher: negatives are what a teacher finds, and there is none; take bm25 or random."
        )
    found = (job.data, told(job.data)) if isinstance(job.data, SearchData) else read_search(job.settings)
    assert found is not None
    return search_corpus(*found, job.settings, job.teacher, [each.student for each in jobs], accelerator, say)
