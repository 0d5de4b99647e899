"""Follow a job's log to its end and answer with the job's own exit code.

Ray's log stream ends silently when a connection drops, and a submitter that trusts it reports
success for a job that is still running. So: read the stream, ask for the status, reconnect without
repeating a line; only a terminal status decides the exit code.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from mutirao.core.errors import (
    EXIT_DATA,
    EXIT_ENVIRONMENT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_USAGE,
    EnvironmentProblem,
)
from mutirao.core.progress import Progress

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SILENCE_S = 60.0  # after this the stream is opened anew: a half-dead connection looks like silence
RETRY_S = 2.0
GIVE_UP_S = 300.0
OWN_CODES = (EXIT_FAILED, EXIT_USAGE, EXIT_DATA, EXIT_ENVIRONMENT, EXIT_STOPPED)


def follow(
    client: JobSubmissionClient,
    job_id: str,
    address: str,
    progress: Progress,
    out: TextIO | None = None,
) -> int:
    """Print the log of the job until it ends; its exit code, or 130 after Ctrl-C (the job goes on).

    Raises EnvironmentProblem if the cluster is gone for `GIVE_UP_S`, or no longer knows the job.
    """
    try:
        info = asyncio.run(_until_ended(client, job_id, _Log(out or sys.stdout), progress))
    except KeyboardInterrupt:
        progress.say(f"\nNo longer following; the job goes on. {how_to_attach(job_id, address)}")
        return EXIT_INTERRUPTED
    if info.status == "FAILED" and info.driver_exit_code is None:
        progress.say(f"The job did not start: {(info.message or '').strip()[:2000]}")
    progress.say(f"{job_id}: {info.status.value}")
    return exit_code(info)


def exit_code(info: Any) -> int:
    """From the terminal status of a job (Ray's JobDetails) to the table of exit codes."""
    if info.status == "SUCCEEDED":
        return EXIT_OK
    if info.status == "STOPPED":
        return EXIT_STOPPED
    code = info.driver_exit_code
    return code if code in OWN_CODES else EXIT_FAILED


def how_to_attach(job_id: str, address: str) -> str:
    return (
        "Follow it with the same command and --follow; "
        f"stop it (it keeps a checkpoint) with: ray job stop {job_id} --address {address}"
    )


@dataclass
class _Log:
    """Prints a log, sent anew from its beginning at each connection, each character once."""

    out: TextIO
    printed: int = 0
    position: int = 0

    def from_start(self) -> None:
        self.position = 0

    def add(self, text: str) -> None:
        start, self.position = self.position, self.position + len(text)
        if self.position > self.printed:
            self.out.write(text[max(self.printed - start, 0) :])
            self.out.flush()
            self.printed = self.position


async def _until_ended(
    client: JobSubmissionClient, job_id: str, log: _Log, progress: Progress
) -> Any:
    """The details of the job once its status is terminal and its whole log is printed."""
    last_answer, said = time.monotonic(), ""
    while True:
        await _read_stream(client, job_id, log)
        try:
            info = await asyncio.to_thread(client.get_job_info, job_id)
            if info.status.is_terminal():
                log.from_start()
                log.add(await asyncio.to_thread(client.get_job_logs, job_id))
                return info
            last_answer = time.monotonic()
            if info.status == "PENDING":
                said = _say_once(progress, said, f"{job_id} waits: {info.message}")
        except (OSError, RuntimeError) as error:
            _check_lost(error, job_id, time.monotonic() - last_answer)
            said = _say_once(progress, said, "The cluster does not answer; trying again.")
        await asyncio.sleep(RETRY_S)


async def _read_stream(client: JobSubmissionClient, job_id: str, log: _Log) -> None:
    """Print one log stream until it ends, breaks or falls silent; the status tells which."""
    import aiohttp

    log.from_start()
    stream = cast("AsyncGenerator[str, None]", client.tail_job_logs(job_id))
    try:
        while True:
            log.add(await asyncio.wait_for(anext(stream), SILENCE_S))
    except (StopAsyncIteration, TimeoutError, OSError, RuntimeError, aiohttp.ClientError):
        return
    finally:
        await stream.aclose()


def _say_once(progress: Progress, said: str, line: str) -> str:
    if line != said:
        progress.say(line)
    return line


def _check_lost(error: Exception, job_id: str, silent_s: float) -> None:
    if "does not exist" in str(error):
        raise EnvironmentProblem(
            f"The cluster no longer knows the job {job_id}",
            hint="Its head was restarted. Submit again: the run continues from its checkpoint.",
            code="job-lost",
        ) from error
    if silent_s > GIVE_UP_S:
        raise EnvironmentProblem(
            f"The cluster has not answered for {silent_s:.0f} s",
            hint="The job may still be running: the same command with --follow attaches to it.",
            code="cluster-lost",
        ) from error
