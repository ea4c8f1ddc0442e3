"""Pages of jobs, newest first, each within a bound: a page may be shorter than asked, and says where the next one starts."""

from collections.abc import Sequence
from typing import NamedTuple

from broker.store.job_records import Criteria, JobRecord, Run, read_records, read_runs
from broker.store.job_sources import IdRange, find_candidates
from broker.store.reader import Reader

_IDS_PER_STATEMENT = 250
_ANY = Criteria()


class Job(NamedTuple):
    """A job as it is shown: what it is and where it stands, and what its runs have left."""

    record: JobRecord
    run: Run


class JobPage(NamedTuple):
    """Jobs, newest first; the next page has ids below `next_below`, None at the end."""

    jobs: list[Job]
    next_below: int | None


async def read_job(reader: Reader, job_id: int, *, full: bool) -> Job | None:
    """The job, or None if there is none of that id. Raises Unavailable."""
    records = await read_records(reader, [job_id], _ANY, 1, full=full)
    if not records:
        return None
    (run,) = await read_runs(reader, records, full=full)
    return Job(records[0], run)


async def read_page(
    reader: Reader,
    criteria: Criteria,
    job_ids: Sequence[int] | None,
    within: IdRange,
    page_size: int,
    *,
    full: bool,
) -> JobPage:
    """One page of the jobs of `within` that meet the criteria and, unless None, are among `job_ids`. Raises Unavailable."""
    candidates = await find_candidates(reader, criteria, job_ids, within)
    records: list[JobRecord] = []
    looked_at = 0
    while (
        looked_at < len(candidates.job_ids)
        and len(records) < page_size
        and (not records or records[-1].fetched)
    ):
        ids = candidates.job_ids[looked_at : looked_at + _IDS_PER_STATEMENT]
        records += await read_records(reader, ids, criteria, page_size - len(records), full=full)
        looked_at += len(ids)
    shown = [record for record in records if record.fetched]
    runs = await read_runs(reader, shown, full=full)
    jobs = [Job(record, run) for record, run in zip(shown, runs, strict=False)]
    if len(jobs) == len(records) and len(jobs) < page_size:
        return JobPage(jobs, candidates.reached)
    last = jobs[-1].record.job_id
    is_end = candidates.reached is None and last == candidates.job_ids[-1]
    return JobPage(jobs, None if is_end else last)
