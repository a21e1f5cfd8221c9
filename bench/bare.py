"""The floor of `bench.incidents`: a bare workflow, and a worker as the SDK ships it.

python -m bench.bare ADDRESS
"""

import asyncio
import sys
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

BARE_QUEUE = "bare"


@activity.defn
async def nothing() -> None:
    return


@workflow.defn
class Bare:
    """As many activities as it is told, one after the other, the last one after a signal."""

    def __init__(self) -> None:
        self._signalled = False

    @workflow.run
    async def run(self, activities: int) -> None:
        for _ in range(activities - 1):
            await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=30))
        await workflow.wait_condition(lambda: self._signalled)
        await workflow.execute_activity(nothing, start_to_close_timeout=timedelta(seconds=30))

    @workflow.signal
    def go(self) -> None:
        self._signalled = True


async def main() -> None:
    client = await Client.connect(sys.argv[1])
    await Worker(client, task_queue=BARE_QUEUE, workflows=[Bare], activities=[nothing]).run()


if __name__ == "__main__":
    asyncio.run(main())
