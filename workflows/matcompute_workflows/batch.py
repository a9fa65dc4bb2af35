"""``BatchCalculation``: one job of the node program over the structures of one shard."""

from __future__ import annotations

import json
import shlex
from typing import Any

from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob, CalcJobProcessSpec
from aiida.orm import Dict, RemoteData, SinglefileData

from matcompute_workflows.shard import ShardData
from matcompute_workflows.taskfile import FILES, check_task, task_file

__all__ = ["EXIT_CODES", "NODE_EXIT_CODES", "BatchCalculation"]

#: Exit code → (label, message). One per class of failure, so that handlers and triage need not read logs.
EXIT_CODES: dict[int, tuple[str, str]] = {
    300: ("ERROR_VANISHED", "The job ended without a trace: its machine or its scheduler ended it. {detail}"),
    301: ("ERROR_KILLED", "The node program was killed by signal {detail}."),
    302: ("ERROR_NODE_FAILED", "The machine of the job failed. {detail}"),
    303: ("ERROR_PREEMPTED", "The job had to make way for another one. {detail}"),
    304: ("ERROR_CANCELLED", "Somebody has cancelled the job at its scheduler. {detail}"),
    310: ("ERROR_OUT_OF_MEMORY", "The node program ran out of memory. {detail}"),
    320: ("ERROR_OUT_OF_WALLTIME", "The scheduler ended the job at its walltime. {detail}"),
    321: ("ERROR_PARTIAL", "The node program stopped early and cleanly; the checkpoint is valid. {detail}"),
    330: ("ERROR_INVALID_INPUT", "The node program refused the task file or the input shard: {detail}"),
    331: ("ERROR_MODEL", "The model file is missing or is another one: {detail}"),
    332: ("ERROR_UNAVAILABLE", "The calculator, the task or a package is not installed: {detail}"),
    333: ("ERROR_CANNOT_WRITE", "The node program cannot write in its folder: {detail}"),
    334: ("ERROR_NODE_PROGRAM", "The node program failed: {detail}"),
    340: ("ERROR_RESULTS_MISSING", "The job ended well but there is no result shard. {detail}"),
    341: ("ERROR_RESULTS_CORRUPT", "The result shard cannot be read: {detail}"),
    342: (
        "ERROR_RESULTS_MISMATCH",
        "The result shard is not about the structures of the input shard: {detail}",
    ),
}
#: Exit status of the node program → exit code here; see ``matcompute.node.exit_codes``.
NODE_EXIT_CODES = {65: 330, 66: 331, 69: 332, 70: 334, 73: 333, 75: 321, 2: 334}


def _check_task(node: Dict, _port: Any) -> str | None:
    return check_task(node.get_dict())


class BatchCalculation(CalcJob):
    """Run ``matcompute-node run`` on a shard.

    Inputs decide the numbers (``shard``, ``task``, ``model``, ``code``); options decide how they are computed
    (``metadata.options``: ``processes``, ``threads``, ``ranks``, ``gpus``, ``slots``, ``max_wallclock_seconds``,
    ``max_memory_kb``, ``resources``). With ``parent_folder`` the job continues from the checkpoint of an earlier one.
    """

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs, outputs and exit codes."""
        super().define(spec)
        spec.input("shard", valid_type=ShardData, help="The structures.")
        spec.input(
            "task", valid_type=Dict, validator=_check_task, help="Task, parameters, calculator, stage."
        )
        spec.input(
            "model",
            valid_type=SinglefileData,
            required=False,
            help="Weights in place of those in the package.",
        )
        spec.input(
            "parent_folder",
            valid_type=RemoteData,
            required=False,
            help="Folder of the job whose work goes on.",
        )
        options: Any = spec.inputs["metadata"]["options"]
        options["parser_name"].default = "matcompute.batch"
        options["resources"].default = lambda: {"num_machines": 1, "num_mpiprocs_per_machine": 1}
        options["withmpi"].default = False
        spec.input("metadata.options.ranks", valid_type=int, default=0, help="MPI ranks; 0 is without MPI.")
        spec.input(
            "metadata.options.processes", valid_type=int, default=1, help="Worker processes without MPI."
        )
        spec.input(
            "metadata.options.threads", valid_type=int, default=1, help="Threads of a rank or process."
        )
        spec.input("metadata.options.gpus", valid_type=int, default=0, help="GPUs of the job.")
        spec.input(
            "metadata.options.longest_wallclock_seconds",
            valid_type=int,
            required=False,
            help="Longest walltime that a restart may ask for: what the partition allows.",
        )
        spec.input(
            "metadata.options.largest_memory_kb",
            valid_type=int,
            required=False,
            help="Most memory that a restart may ask for: what a node has.",
        )
        spec.input(
            "metadata.options.collect",
            valid_type=bool,
            default=False,
            help="Compute nothing: write the result shard from the checkpoint, whatever it holds.",
        )
        spec.input(
            "metadata.options.slots",
            valid_type=str,
            required=False,
            help="Folder of core slots, shared by jobs.",
        )
        spec.output(
            "results", valid_type=ShardData, required=False, help="Same entries, final structures, results."
        )
        spec.output(
            "summary", valid_type=Dict, required=False, help="Counts, times, versions, model hash, host."
        )
        spec.default_output_node = "summary"
        for status, (label, message) in EXIT_CODES.items():
            spec.exit_code(status, label, message=message, invalidates_cache=True)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write ``task.json`` and say what is copied, run and retrieved."""
        options = self.inputs.metadata.options
        shard: ShardData = self.inputs.shard
        walltime = options.get("max_wallclock_seconds")
        content = task_file(
            self.inputs.task.get_dict(),
            model_sha256=self._model_sha256(),
            walltime_s=None if walltime is None else float(walltime),
            processes=options.processes,
            threads=options.threads,
            slots=options.get("slots"),
        )
        with folder.open(FILES["task"], "w", encoding="utf-8") as handle:
            json.dump(content, handle, indent=1, sort_keys=True)

        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ["run", FILES["task"], *(["--collect"] if options.collect else [])]
        code.stdout_name = FILES["stdout"]
        code.stderr_name = FILES["stderr"]
        code.withmpi = options.ranks > 0

        info = CalcInfo()
        info.codes_info = [code]
        info.local_copy_list = [(shard.uuid, shard.filename, FILES["structures"])]
        if "model" in self.inputs:
            info.local_copy_list.append((self.inputs.model.uuid, self.inputs.model.filename, FILES["model"]))
        # Says whether the program ended, and how: without this file the job itself was killed.
        info.append_text = f"echo $? > {FILES['exit_status']}"
        if "parent_folder" in self.inputs:
            info.prepend_text = self._take_over(self.inputs.parent_folder)
        info.retrieve_list = [
            FILES["summary"],
            FILES["stdout"],
            FILES["stderr"],
            FILES["exit_status"],
            (f"{FILES['checkpoint']}/journal-*.jsonl", ".", 1),
        ]
        # The result shard becomes a node of its own.
        info.retrieve_temporary_list = [FILES["results"]]
        return info

    def _model_sha256(self) -> str | None:
        if "model" not in self.inputs:
            return None
        import hashlib

        with self.inputs.model.open(mode="rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()

    @staticmethod
    def _take_over(parent: RemoteData) -> str:
        """Shell lines that bring the checkpoint of an earlier job.

        Not AiiDA's own copy list, which works before the job starts: what is left of the earlier job may still be
        computing (its script was killed, not the program). The node program holds a lock in its folder; waiting
        for it makes sure that nothing is computed twice and that the checkpoint is whole.
        """
        path = shlex.quote(parent.get_remote_path())
        copy = f"cp -a {path}/{FILES['checkpoint']} . 2>/dev/null || true"
        return (
            f"if command -v flock >/dev/null && [ -e {path}/job.lock ]; then\n"
            f"  flock {path}/job.lock true || true\n"
            "fi\n"
            f"{copy}"
        )
