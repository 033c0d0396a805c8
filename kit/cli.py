"""The command line: parse and dispatch, nothing else."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from kit import __version__
from kit.errors import ExitCode, KitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERRUPTED = 130
"""What shells expect after Ctrl-C."""
BROKEN_PIPE = 141
"""What shells expect of a program whose output nobody reads any more."""


class _Parser(argparse.ArgumentParser):
    rest: str | None = None
    """What the words behind `--` become, where they are another program's."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of its base, which would mistake those words for its own."""
        if self.rest is None or args is None or "--" not in args:
            return super().parse_known_args(args, namespace)
        end = args.index("--")
        found, unknown = super().parse_known_args(args[:end], namespace)
        setattr(found, self.rest, args[end + 1 :])
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where the help is (exit 2)."""
        print(f"error: {message}\n  try: {self.prog} --help", file=sys.stderr)
        sys.exit(ExitCode.USAGE)


def run(arguments: Sequence[str]) -> int:
    """Parse, call the command, turn what it raises into one message and an exit code."""
    options = parser().parse_args(list(arguments))

    def command() -> int:
        code: int = importlib.import_module(f"kit.commands.{options.module}").run(options)
        return code

    return guarded(command, options)


def guarded(command: Callable[[], int], options: argparse.Namespace | None = None) -> int:
    """Call a command; what it raises becomes one message and an exit code."""
    options = options or argparse.Namespace(debug=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale can show
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except KitError as error:
        if options.debug:
            raise
        return _report(options, str(error), error.hint, error.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; what was under way is not done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if options.debug:
            raise
        from kit.files import explained

        if isinstance(error, OSError) and (known := explained(error)) is not None:
            return _report(options, str(known), known.hint, known.exit_code)
        message = f"a bug in kit: {type(error).__name__}: {error}"
        return _report(options, message, "run again with --debug and report it", ExitCode.BUG)
    return code


def _report(options: argparse.Namespace, message: str, hint: str | None, code: ExitCode) -> int:
    if getattr(options, "json", False):
        from kit.console import envelope

        error = {"message": message, "hint": hint, "exit_code": int(code)}
        envelope(options.schema, ok=False, error=error)
    from kit.console import visible

    # What went wrong may be quoted from a file or a server: no control sequence, but lines stay.
    for line in f"error: {message}".split("\n"):
        print(visible(line), file=sys.stderr)
    if hint:
        print(f"  try: {visible(hint)}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="kit",
        description="Reproducible builds of TensorRT-LLM engines, with the network off.",
        epilog="example: kit fetch rehearsal && kit build rehearsal && "
        "kit run gpt2-tiny --stack rehearsal --release 0.9.0",
    )
    top.add_argument("--version", action="version", version=f"kit {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    lock = _command(commands, "lock", "resolve a stack's intent into a lock", "kit lock rehearsal")
    _stack(lock)

    fetch = _command(commands, "fetch", "download what a lock names", "kit fetch rehearsal")
    _stack(fetch)
    fetch.add_argument("--jobs", type=int, default=8, metavar="N", help="downloads at a time")

    build = _command(commands, "build", "build a stack's image, network off", "kit build rehearsal")
    _stack(build)
    build.add_argument(
        "--rebuild",
        action="store_true",
        help="build again from nothing and compare with the image that is there",
    )
    build.add_argument("--quiet", action="store_true", help="the engine's output to the log only")
    build.add_argument("--target", metavar="STAGE", help="the image of this stage: devel, wheel …")
    build.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a build argument; the image's labels say so",
    )
    build.add_argument("--jobs", type=int, metavar="N", help="compilers at a time")
    build.add_argument(
        "--dry-run", action="store_true", help="print every step; needs neither engine nor store"
    )

    example = _command(commands, "example", "what can be run", "kit example list")
    example.add_argument("action", choices=["list"])

    plan = _command(
        commands,
        "plan",
        "the exact commands of an example",
        "kit plan gpt2-tiny --release 0.16.0 --shell",
    )
    _example(plan)
    plan.add_argument("--release", required=True, metavar="R", help="a TensorRT-LLM release")
    plan.add_argument("--shell", action="store_true", help="as a script that runs by hand")
    plan.add_argument("--memory", action="store_true", help="what each rank needs, and why")
    plan.add_argument("--gpu", metavar="NAME", help="with --memory: H200, 'A100 80GB'")
    plan.add_argument(
        "--kv-fraction",
        type=float,
        metavar="F",
        help="with --memory: of the free memory, for the cache, 0 to 1",
    )

    run_ = _command(
        commands,
        "run",
        "run an example in a stack's container and record the manifest",
        "kit run gpt2-tiny --stack rehearsal --release 0.9.0",
    )
    _example(run_)
    run_.add_argument("--stack", required=True, metavar="S")
    run_.add_argument("--release", metavar="R", help="where the stack has several")
    run_.add_argument("--gpus", default="none", metavar="GPUS", help="none, all, 0,1 or UUIDs")
    run_.add_argument("--output", metavar="DIR", help="instead of runs/EXAMPLE/RELEASE/TIME")
    run_.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="these steps of the plan; what they need is taken from earlier runs",
    )
    run_.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN_FOLDER",
        help="go on with the latest run that failed or was killed, or with the one in a folder",
    )
    run_.add_argument(
        "--no-reuse",
        action="store_true",
        help="convert again even if an earlier run has the same checkpoint",
    )
    run_.add_argument(
        "--allow-pickle", action="store_true", help="weights may be pickles, which can run code"
    )
    run_.add_argument(
        "--triton-stack", metavar="S", help="whose image serves, if not the one of the tables"
    )

    manifest = _command(
        commands,
        "manifest",
        "read, check, compare records of runs",
        "kit manifest diff A/manifest.json B/manifest.json",
    )
    actions = ["show", "verify", "diff", "sbom", "provenance"]
    manifest.add_argument("action", choices=actions)
    manifest.add_argument(
        "paths", nargs="+", metavar="MANIFEST", help="sbom and provenance: or the name of a stack"
    )

    reproduce = _command(
        commands,
        "reproduce",
        "run what a manifest records again, network off, and say how far both agree",
        "kit reproduce runs/gpt2-tiny/0.9.0/…/manifest.json --require L6 --report report.html",
    )
    reproduce.add_argument("manifest", metavar="MANIFEST", help="or the folder of its run")
    reproduce.add_argument("--require", metavar="LEVEL", help="L0 to L8; exit 4 below it")
    reproduce.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="L7: how far a logit may be off, of the largest one; by the engine's type without it",
    )
    reproduce.add_argument("--gpus", metavar="GPUS", help="none, all, 0,1; as recorded without it")
    reproduce.add_argument("--report", metavar="FILE", help="write the report as one HTML file")
    reproduce.add_argument("--output", metavar="DIR", help="instead of runs/reproductions")
    reproduce.add_argument("--config", metavar="FILE", help="the recipe, where it is your own")
    reproduce.add_argument("--model", metavar="DIR", help="the model, where no stack locks it")
    reproduce.add_argument("--dataset", metavar="DIR", help="what an evaluation reads")
    reproduce.add_argument("--allow-pickle", action="store_true", help="weights may be pickles")
    reproduce.add_argument(
        "--receipt", metavar="FILE", help="add the result to a receipt of `kit bundle load`"
    )
    reproduce.add_argument("--sign-with", metavar="KEY", help="sign the receipt")

    _triton(commands)
    _slurm(commands)
    _compat(commands)
    _questions(commands)
    _bundle(commands)
    return top


def _triton(commands: argparse._SubParsersAction[_Parser]) -> None:
    triton = _command(
        commands,
        "triton",
        "a model repository for an engine; the server over it, on loopback until interrupted; what "
        "a server, or one that is started for it, answers",
        "kit triton repository --engine RUN/engine --tokenizer DIR --output repository && "
        "kit triton serve repository, then kit triton check http://127.0.0.1:8000 --prompt Hello",
    )
    triton.add_argument("action", choices=["repository", "serve", "check"])
    triton.add_argument(
        "target", nargs="?", metavar="REPOSITORY|URL", help="serve, check: what to serve or to ask"
    )
    triton.add_argument("--engine", metavar="DIR", help="where the repository does not say")
    triton.add_argument("--tokenizer", metavar="DIR", help="the model's folder has it")
    triton.add_argument("--release", metavar="R", help="where the engine does not say")
    triton.add_argument("--stack", metavar="S", help="whose image, if not the one of the tables")
    triton.add_argument("--gpus", default="none", metavar="GPUS", help="none, all, 0,1 or UUIDs")
    triton.add_argument("--output", metavar="DIR", help="repository: the folder to make")
    triton.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="MODEL.PARAMETER=VALUE",
        help="repository: a placeholder of that version's config.pbtxt",
    )
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        text = "serve: on loopback" + ("; check: of the server" if name == "metrics" else "")
        triton.add_argument(f"--{name}-port", type=int, default=port, metavar="N", help=text)
    triton.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="check: to be answered"
    )
    triton.add_argument("--max-tokens", type=int, default=16, metavar="N", help="check: of answers")
    triton.add_argument("--end-id", type=int, metavar="N", help="check URL: that ends an answer")
    triton.add_argument("--stream", action="store_true", help="check: piece by piece")
    triton.add_argument(
        "--model-name",
        dest="served_model",
        default="ensemble",
        metavar="NAME",
        help="check: which model, such as tensorrt_llm_bls",
    )


def _slurm(commands: argparse._SubParsersAction[_Parser]) -> None:
    slurm = _command(
        commands,
        "slurm",
        "a batch script that runs an example in a job of Slurm's, on one node or several; "
        "behind -- stand further options of sbatch",
        "kit slurm gpt-530b-dummy --stack trtllm-0.16.0 --gpus-per-node 8 --time 2:00:00 --submit "
        "-- --constraint=h100",
    )
    _example(slurm)
    slurm.add_argument("--stack", required=True, metavar="S")
    slurm.add_argument("--release", metavar="R", help="where the stack has several")
    slurm.add_argument("--partition", metavar="P")
    slurm.add_argument("--account", metavar="A")
    slurm.add_argument("--time", metavar="T", help="at most: 90, 1:30:00, 2-12:00")
    slurm.add_argument("--gpus-per-node", type=int, metavar="N", help="none without it")
    slurm.add_argument("--runs", metavar="DIR", help="of the run, instead of runs/EXAMPLE/RELEASE")
    slurm.add_argument("--resume", action="store_true", help="go on with the run of an ended job")
    slurm.add_argument("--no-reuse", action="store_true", help="convert in any case")
    slurm.add_argument("--allow-pickle", action="store_true", help="weights may be pickles")
    slurm.add_argument("--triton-stack", metavar="S", help="whose image serves")
    slurm.add_argument("--output", metavar="FILE", help="write the script instead of printing it")
    slurm.add_argument("--submit", action="store_true", help="hand it to sbatch, print the job")
    slurm.set_defaults(further=[])
    slurm.rest = "further"


def _compat(commands: argparse._SubParsersAction[_Parser]) -> None:
    compat = _command(
        commands,
        "verify-compat",
        "do they fit together: release, container, image, engine, host … any combination",
        "kit verify-compat --release 0.16.0 --triton 24.12",
    )
    compat.add_argument("--release", metavar="R", help="a TensorRT-LLM release")
    compat.add_argument("--triton", metavar="TAG", help="24.12, a tag, or a full image name")
    compat.add_argument("--stack", metavar="S", help="the built image of a stack, and its lock")
    compat.add_argument("--image", metavar="REF", help="of the engine, an OCI layout, an archive")
    compat.add_argument("--engine", metavar="DIR", help="an engine directory, any era")
    compat.add_argument("--checkpoint", metavar="DIR")
    compat.add_argument("--model-repository", metavar="DIR", help="of Triton")
    compat.add_argument("--source", metavar="DIR", help="a checkout of TensorRT-LLM")
    compat.add_argument("--wheel", metavar="FILE")
    compat.add_argument("--manifest", metavar="FILE", help="the record of a run")
    compat.add_argument("--lock", metavar="FILE")
    compat.add_argument("--bundle", metavar="DIR", help="the run and the lock that it carries")
    where = compat.add_mutually_exclusive_group()
    where.add_argument("--host", action="store_true", help="this host")
    where.add_argument("--host-facts", metavar="FILE", help="of `kit doctor --export`")
    compat.add_argument("--gpu", metavar="NAME|CC", help="H100, 9.0, sm_90")
    compat.add_argument("--strict", action="store_true", help="unknown counts as incompatible")
    compat.add_argument(
        "--explain",
        metavar="RULE",
        nargs="?",
        const="",
        help="what a rule holds and where that comes from; without a name, all rules",
    )


def _bundle(commands: argparse._SubParsersAction[_Parser]) -> None:
    bundle = _command(
        commands,
        "bundle",
        "what crosses the air gap: make it, check it, import it",
        "kit bundle create OUT --stack rehearsal --key KEY && kit bundle verify OUT",
    )
    actions = ["create", "verify", "load", "list", "push", "export"]
    bundle.add_argument("action", choices=actions)
    bundle.add_argument("bundle", nargs="?", metavar="BUNDLE", help="its folder")
    bundle.add_argument("target", nargs="?", metavar="REGISTRY", help="push: host/prefix")
    bundle.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="create: private key that signs; verify, load: the sender's .pub, "
        "instead of those in KIT_HOME/trusted-keys",
    )
    bundle.add_argument("--jobs", type=int, metavar="N", help="threads, by default one a core")
    bundle.add_argument(
        "--sync", action="store_true", help="create, load: wait until the disk has all of it"
    )
    what = bundle.add_argument_group("create")
    for name, meta, text in (
        ("stack", "S", "its image, lock, inputs, models"),
        ("example", "E", "its recipe and, of the stacks, its model"),
        ("model", "NAME|DIR", "of a stack, or a folder"),
        ("dataset", "DIR", "calibration or evaluation data"),
        ("manifest", "FILE", "of a run, with all that lies beside it"),
        ("file", "FILE|DIR", "anything else"),
    ):
        what.add_argument(f"--{name}", action="append", default=[], metavar=meta, help=text)
    what.add_argument("--without-inputs", action="store_true", help="the image, not what made it")
    what.add_argument("--without-kit", action="store_true", help="the site has the kit already")
    what.add_argument("--name", metavar="NAME", help="deliveries of one name follow each other")
    what.add_argument("--sequence", type=int, metavar="N", help="which delivery of that name")
    what.add_argument("--part-size", metavar="SIZE", help="fill parts of: 4.7G, 55MiB …")
    what.add_argument("--since", metavar="BUNDLE", help="only what that one has not")
    site = bundle.add_argument_group("verify, load, export")
    site.add_argument("--receipt", metavar="FILE", help="what was found, to send back")
    site.add_argument("--sign-with", metavar="KEY", help="sign the receipt")
    site.add_argument(
        "--allow-rollback", action="store_true", help="load an older delivery than the last"
    )
    site.add_argument("--to", metavar="FORMAT", help="export: hauler or zarf")


def _questions(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = _command(commands, "doctor", "is this host able", "kit doctor --export host.json")
    doctor.add_argument("--export", metavar="FILE", help="write the facts, for --host-facts")
    doctor.add_argument("--gpu", action="store_true", help="a host without a GPU is not able")

    inspect = _command(
        commands, "inspect", "which versions are inside", "kit inspect runs/gpt2-tiny/engine"
    )
    inspect.add_argument("path", metavar="PATH|IMAGE")
    inspect.add_argument(
        "more", nargs="*", metavar="FOLDER", help="further folders with parts of a bundle"
    )

    diagnose = _command(
        commands, "diagnose", "the first cause of a failure", "kit diagnose --release 0.16.0 x.log"
    )
    diagnose.add_argument("log", nargs="?", metavar="LOG", help="standard input without it")
    diagnose.add_argument("--release", metavar="R", help="the fix for this release")

    check = _command(
        commands,
        "check-command",
        "would a release accept a command line",
        "kit check-command --release 0.12.0 -- trtllm-build --max_output_len 10",
    )
    check.add_argument("--release", metavar="R", help="a TensorRT-LLM release")
    check.add_argument("--any", action="store_true", help="which releases accept it")
    check.add_argument("--script", metavar="PATH", help="the script that a bare file name means")
    check.add_argument(
        "command", nargs="*", metavar="COMMAND", help="one quoted string, or words after --"
    )


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, purpose: str, example: str
) -> _Parser:
    command = commands.add_parser(
        name, help=purpose, description=purpose, epilog=f"example: {example}"
    )
    command.add_argument("--json", action="store_true", help="one JSON object on stdout")
    command.add_argument("--debug", action="store_true", help="show tracebacks")
    command.set_defaults(module=name.replace("-", "_"), schema=name)
    return command


def _example(command: argparse.ArgumentParser) -> None:
    command.add_argument("example", nargs="?", metavar="EXAMPLE", help="as kit example list says")
    command.add_argument("--config", metavar="FILE", help="a recipe or a buildconfig.yaml instead")
    command.add_argument(
        "--model", metavar="DIR|FILE", help="a model of your own, as a folder or a .nemo file"
    )
    command.add_argument("--dataset", metavar="DIR", help="what an evaluation reads")


def _stack(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "stack",
        nargs="?",
        metavar="STACK",
        help="by default the newest TensorRT-LLM on a host with an NVIDIA GPU, else rehearsal",
    )
