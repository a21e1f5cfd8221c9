"""A workflow that was changed without a patch: what the replay test must catch."""

from temporalio import workflow

from domain.incident import RunbookInput, RunbookResult
from workflows.runbook import RunbookWorkflow


@workflow.defn(name="RunbookWorkflow", sandboxed=False)
class ChangedRunbookWorkflow(RunbookWorkflow):
    """Waits a moment before it begins, which no recorded run did."""

    @workflow.init
    def __init__(self, input: RunbookInput) -> None:
        super().__init__(input)

    @workflow.run
    async def run(self, input: RunbookInput) -> RunbookResult:
        await workflow.sleep(1)
        return await super().run(input)
