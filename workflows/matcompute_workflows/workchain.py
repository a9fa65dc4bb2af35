"""``BatchWorkChain``: a batch that is restarted from its checkpoint until every structure was attempted."""

from __future__ import annotations

from typing import Any

from aiida.common import AttributeDict
from aiida.engine import (
    BaseRestartWorkChain,
    ExitCode,
    ProcessHandlerReport,
    ToContext,
    if_,
    process_handler,
    while_,
)
from aiida.orm import CalcJobNode, Dict, Int

from matcompute_workflows.batch import BatchCalculation
from matcompute_workflows.shard import ShardData

__all__ = ["BatchWorkChain"]

#: A stop without a single new structure is given this many more chances.
MAX_STALLED = 2
#: Factor on the walltime of a job in which not one structure fits.
WALLTIME_FACTOR = 2
MEMORY_FACTOR = 2
#: Jobs of a batch that may be lost to the centre: machines that fail, jobs that somebody cancels.
MAX_CENTRE_FAILURES = 3
#: Jobs of a batch that may have to make way for others.
MAX_PREEMPTED = 12

_Codes = BatchCalculation.exit_codes


class BatchWorkChain(BaseRestartWorkChain):
    """Run :class:`BatchCalculation` and restart it with what it needs.

    A job that stopped at its walltime, ran out of memory, vanished or was killed goes on from the checkpoint of its
    predecessor: what was finished is never computed again. A cause that a restart cannot mend (bad input, missing
    model or package, full disk) ends the work chain with an exit code of its own. When it gives up, what is finished
    is collected from the checkpoint and the rest is marked as lost.

    Its label is the key of the batch, given by whoever submits it.
    """

    _process_class = BatchCalculation

    @classmethod
    def define(cls, spec: Any) -> None:
        """Define inputs, outline, outputs and exit codes."""
        super().define(spec)
        spec.expose_inputs(BatchCalculation, namespace="batch", exclude=("metadata.computer",))
        spec.inputs["max_iterations"].default = lambda: Int(20)
        step: Any = cls  # AiiDA types a step as taking a WorkChain, not the class that has it
        spec.outline(
            step.setup,
            while_(step.should_run_process)(step.run_process, step.inspect_process),
            if_(step.should_collect)(step.run_collect, step.inspect_collect),
            step.results,
        )
        spec.output("results", valid_type=ShardData, required=False, help="Same entries as the input shard.")
        spec.output("summary", valid_type=Dict, required=False, help="Of the last job.")
        spec.exit_code(410, "ERROR_INVALID_INPUT", message="The input is invalid: {detail}")
        spec.exit_code(411, "ERROR_MODEL", message="The model file is missing or is another one: {detail}")
        spec.exit_code(412, "ERROR_UNAVAILABLE", message="Something is not installed: {detail}")
        spec.exit_code(413, "ERROR_CANNOT_WRITE", message="The job cannot write: {detail}")
        spec.exit_code(414, "ERROR_NODE_PROGRAM", message="The node program fails again and again: {detail}")
        spec.exit_code(
            415, "ERROR_RESULTS", message="The result shard is missing, corrupt or wrong: {detail}"
        )
        spec.exit_code(420, "ERROR_OUT_OF_MEMORY", message="Out of memory with a single process: {detail}")
        spec.exit_code(
            421, "ERROR_NO_PROGRESS", message="Job after job ends without a new structure: {detail}"
        )

        spec.exit_code(
            422, "ERROR_CENTRE", message="The centre ends the batch's jobs again and again: {detail}"
        )

    # ------------------------------------------------------------------ steps
    def setup(self) -> None:
        """Start from the inputs; nothing is finished yet."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(BatchCalculation, "batch"))
        self.ctx.finished = 0
        self.ctx.stalled = 0
        self.ctx.failures = 0
        self.ctx.given_up = None

    def inspect_process(self) -> ExitCode | None:
        """Let the handlers look at the last job; giving up is put off until what is finished was collected."""
        self._measure_progress(self.ctx.children[self.ctx.iteration - 1])
        exit_code = super().inspect_process()
        if exit_code is not None and exit_code.status != 0:
            # Plain values: the context is saved with every step.
            self.ctx.given_up = [exit_code.status, exit_code.message]
            self.ctx.is_finished = True
            return None
        return exit_code

    def should_collect(self) -> bool:
        """Whether to collect what is finished after giving up."""
        return self.ctx.given_up is not None and self.ctx.finished > 0

    def run_collect(self) -> ToContext:
        """Run a job that computes nothing and writes the result shard from the checkpoint."""
        inputs = self.ctx.inputs
        inputs.metadata.options.collect = True
        inputs.metadata.options.ranks = 0
        inputs.metadata.call_link_label = "collect"
        last = self.ctx.children[-1]
        if "remote_folder" in last.outputs:
            inputs.parent_folder = last.outputs.remote_folder
        node = self.submit(
            BatchCalculation, **self._wrap_bare_dict_inputs(BatchCalculation.spec().inputs, inputs)
        )
        self.report(f"giving up; {self.ctx.finished} finished structures are collected by job {node.pk}")
        return ToContext(collected=node)

    def inspect_collect(self) -> None:
        """Mark as lost what no job has finished."""
        from matcompute_workflows.functions import mark_lost

        node = self.ctx.collected
        if "results" in node.outputs:
            self.ctx.salvaged = mark_lost(node.outputs.results)["results"]
        else:
            self.report(f"the collecting job {node.pk} has no result shard either: {node.exit_message}")

    def results(self) -> ExitCode | None:
        """Attach the outputs, and return the cause if the work chain gave up."""
        node = self.ctx.children[-1]
        if self.ctx.given_up is None:
            self.out("results", node.outputs.results)
            self.out("summary", node.outputs.summary)
            return None
        if "salvaged" in self.ctx:
            self.out("results", self.ctx.salvaged)
        elif "results" in node.outputs:
            self.out("results", node.outputs.results)
        if "summary" in node.outputs:
            self.out("summary", node.outputs.summary)
        status, message = self.ctx.given_up
        self.report(f"gave up: {message}")
        return ExitCode(status, message)

    # ------------------------------------------------------------------ help for handlers
    def _measure_progress(self, node: CalcJobNode) -> None:
        """Note whether the job has finished structures that its predecessors had not."""
        summary = node.outputs.summary.get_dict() if "summary" in node.outputs else {}
        counts = summary.get("counts", {})
        finished = sum(int(value) for key, value in counts.items() if key != "not_attempted")
        self.ctx.stalled = 0 if finished > self.ctx.finished else self.ctx.stalled + 1
        self.ctx.finished = max(finished, self.ctx.finished)

    def _continue_from(self, node: CalcJobNode) -> None:
        if "remote_folder" in node.outputs:
            self.ctx.inputs.parent_folder = node.outputs.remote_folder

    def _fewer_processes(self) -> bool:
        """Halve the number of workers; return whether that was possible."""
        options = self.ctx.inputs.metadata.options
        key = "ranks" if options.get("ranks", 0) > 0 else "processes"
        before = int(options.get(key, 1))
        if before <= 1:
            return False
        options[key] = before // 2
        if key == "ranks" and "tot_num_mpiprocs" in options.resources:
            options.resources = {**options.resources, "tot_num_mpiprocs": before // 2}
        elif key == "ranks":
            machines = int(options.resources.get("num_machines", 1))
            options.resources = {
                **options.resources,
                "num_machines": min(machines, before // 2),
                "num_mpiprocs_per_machine": max(1, before // 2 // machines),
            }
        return True

    def _more_memory(self) -> bool:
        """Double the memory that is asked for, as far as a node has it; return whether that was possible."""
        options = self.ctx.inputs.metadata.options
        if "max_memory_kb" not in options:
            return False
        before = int(options.max_memory_kb)
        wanted = min(before * MEMORY_FACTOR, int(options.get("largest_memory_kb") or before * MEMORY_FACTOR))
        options.max_memory_kb = max(before, wanted)
        return wanted > before

    def _longer_walltime(self) -> bool:
        """Double the walltime, as far as the partition allows it; return whether that was possible."""
        options = self.ctx.inputs.metadata.options
        before = int(options.get("max_wallclock_seconds") or 0)
        if not before:
            return False
        longest = int(options.get("longest_wallclock_seconds") or before * WALLTIME_FACTOR)
        options.max_wallclock_seconds = max(before, min(before * WALLTIME_FACTOR, longest))
        return int(options.max_wallclock_seconds) > before

    def _give_up(self, label: str, node: CalcJobNode) -> ProcessHandlerReport:
        code: ExitCode = self.exit_codes[label]
        return ProcessHandlerReport(True, code.format(detail=node.exit_message or f"job {node.pk}"))

    def _restart(self, node: CalcJobNode, why: str) -> ProcessHandlerReport:
        self._continue_from(node)
        self.report(f"job {node.pk}: {why}; going on from its checkpoint ({self.ctx.finished} finished)")
        return ProcessHandlerReport(True)

    # ------------------------------------------------------------------ handlers, in order of priority
    @process_handler(priority=600, exit_codes=[_Codes.ERROR_INVALID_INPUT])
    def handle_invalid_input(self, node: CalcJobNode) -> ProcessHandlerReport:
        """No restart mends a bad task file or shard."""
        return self._give_up("ERROR_INVALID_INPUT", node)

    @process_handler(priority=590, exit_codes=[_Codes.ERROR_MODEL])
    def handle_model(self, node: CalcJobNode) -> ProcessHandlerReport:
        """No restart brings a model file."""
        return self._give_up("ERROR_MODEL", node)

    @process_handler(priority=580, exit_codes=[_Codes.ERROR_UNAVAILABLE])
    def handle_unavailable(self, node: CalcJobNode) -> ProcessHandlerReport:
        """No restart installs a package."""
        return self._give_up("ERROR_UNAVAILABLE", node)

    @process_handler(priority=570, exit_codes=[_Codes.ERROR_CANNOT_WRITE])
    def handle_cannot_write(self, node: CalcJobNode) -> ProcessHandlerReport:
        """A full disk wants a person; the checkpoint stays for a later retry."""
        return self._give_up("ERROR_CANNOT_WRITE", node)

    @process_handler(priority=500, exit_codes=[_Codes.ERROR_OUT_OF_MEMORY])
    def handle_out_of_memory(self, node: CalcJobNode) -> ProcessHandlerReport:
        """Ask for more memory and let fewer workers share it."""
        more = self._more_memory()
        fewer = self._fewer_processes()
        if not fewer and (not more or self.ctx.stalled > MAX_STALLED):
            return self._give_up("ERROR_OUT_OF_MEMORY", node)
        options = self.ctx.inputs.metadata.options
        workers = options.get("ranks") or options.get("processes", 1)
        memory = f" and {options.max_memory_kb} kB" if more else ""
        return self._restart(node, f"out of memory, next with {workers} workers{memory}")

    @process_handler(priority=400, exit_codes=[_Codes.ERROR_PARTIAL, _Codes.ERROR_OUT_OF_WALLTIME])
    def handle_walltime(self, node: CalcJobNode) -> ProcessHandlerReport:
        """Go on in a new job; a longer one if not a single structure fitted."""
        if self.ctx.stalled > MAX_STALLED:
            return self._give_up("ERROR_NO_PROGRESS", node)
        if self.ctx.stalled and self._longer_walltime():
            seconds = self.ctx.inputs.metadata.options.max_wallclock_seconds
            return self._restart(node, f"no structure fitted the walltime, next with {seconds} s")
        return self._restart(node, "stopped before the end")

    @process_handler(priority=350, exit_codes=[_Codes.ERROR_PREEMPTED])
    def handle_preempted(self, node: CalcJobNode) -> ProcessHandlerReport:
        """Go on in a new job: that it had to make way says nothing about it."""
        self.ctx.preempted = self.ctx.get("preempted", 0) + 1
        self.ctx.stalled = 0
        if self.ctx.preempted > MAX_PREEMPTED:
            return self._give_up("ERROR_CENTRE", node)
        return self._restart(node, "had to make way")

    @process_handler(priority=340, exit_codes=[_Codes.ERROR_NODE_FAILED, _Codes.ERROR_CANCELLED])
    def handle_centre(self, node: CalcJobNode) -> ProcessHandlerReport:
        """Go on in a new job, a few times; then another centre may do better."""
        self.ctx.centre_failures = self.ctx.get("centre_failures", 0) + 1
        self.ctx.stalled = 0
        if self.ctx.centre_failures > MAX_CENTRE_FAILURES:
            return self._give_up("ERROR_CENTRE", node)
        return self._restart(node, "was ended by the centre")

    @process_handler(priority=300, exit_codes=[_Codes.ERROR_VANISHED, _Codes.ERROR_KILLED])
    def handle_vanished(self, node: CalcJobNode) -> ProcessHandlerReport:
        """Go on in a new job; with fewer workers if it happens again without progress (memory is likely)."""
        if self.ctx.stalled > MAX_STALLED:
            return self._give_up("ERROR_NO_PROGRESS", node)
        if self.ctx.stalled > 1:
            self._fewer_processes()
        return self._restart(node, "vanished or was killed")

    @process_handler(priority=200, exit_codes=[_Codes.ERROR_NODE_PROGRAM])
    def handle_node_program(self, node: CalcJobNode) -> ProcessHandlerReport:
        """An internal error may be the machine's; one more chance."""
        self.ctx.failures += 1
        if self.ctx.failures > 1:
            return self._give_up("ERROR_NODE_PROGRAM", node)
        return self._restart(node, "the node program failed")

    @process_handler(
        priority=100,
        exit_codes=[
            _Codes.ERROR_RESULTS_MISSING,
            _Codes.ERROR_RESULTS_CORRUPT,
            _Codes.ERROR_RESULTS_MISMATCH,
        ],
    )
    def handle_results(self, node: CalcJobNode) -> ProcessHandlerReport:
        """Write the result shard again, from the checkpoint, once."""
        self.ctx.failures += 1
        if self.ctx.failures > 1:
            return self._give_up("ERROR_RESULTS", node)
        return self._restart(node, "its result shard cannot be used")
