"""What can be said on the command line, as a table of commands."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from kit import __version__
from kit.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable


class Parser(argparse.ArgumentParser):
    """A parser that gets its options when they are wanted: of all commands, one is."""

    rest: str | None = None
    """What the words behind `--` become, where they are another program's."""
    fill: Callable[[Parser], None] | None = None
    """Adds the options."""

    def __init__(self, **options: Any) -> None:
        # One is made to check each option; how wide a terminal is, is of no use there.
        super().__init__(formatter_class=partial(argparse.HelpFormatter, width=80), **options)

    def format_help(self) -> str:
        """As wide as the terminal."""
        self.formatter_class = argparse.HelpFormatter
        return super().format_help()

    def filled(self) -> Parser:
        """Itself, with its options."""
        fill, self.fill = self.fill, None
        if fill is not None:
            self.add_argument("--json", action="store_true", help="one JSON object on stdout")
            self.add_argument("--debug", action="store_true", help="show tracebacks")
            fill(self)
        return self

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of its base, which would mistake the words of another program for its own."""
        self.filled()
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


class Command(NamedTuple):
    """One command: `kit.commands` has the module of its name."""

    name: str
    purpose: str
    example: str
    fill: Callable[[Parser], None]


def parser(wanted: str | None = None) -> Parser:
    """The command line: all of it, or only the command that is wanted, if there is such a one."""
    top = Parser(
        prog="kit",
        description="Reproducible builds of TensorRT-LLM engines, with the network off.",
        epilog="example: kit fetch rehearsal && kit build rehearsal && "
        "kit run gpt2-tiny --stack rehearsal --release 0.9.0",
    )
    top.add_argument("--version", action="version", version=f"kit {__version__}")
    commands = top.add_subparsers(
        metavar="COMMAND", required=True, parser_class=Parser, prog=top.prog
    )
    found = [command for command in COMMANDS if command.name == wanted]
    for name, purpose, example, fill in found or COMMANDS:
        command = commands.add_parser(
            name, help=purpose, description=purpose, epilog=f"example: {example}"
        )
        command.set_defaults(module=name.replace("-", "_"), schema=name)
        command.fill = fill
    return top


def _lock(command: Parser) -> None:
    _stack(command)


def _fetch(command: Parser) -> None:
    _stack(command)
    command.add_argument("--jobs", type=int, default=8, metavar="N", help="downloads at a time")


def _build(command: Parser) -> None:
    _stack(command)
    command.add_argument(
        "--rebuild",
        action="store_true",
        help="build again from nothing and compare with the image that is there",
    )
    command.add_argument("--quiet", action="store_true", help="the engine's output to the log only")
    command.add_argument(
        "--target", metavar="STAGE", help="the image of this stage: devel, wheel …"
    )
    command.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another value of a build argument; the image's labels say so",
    )
    command.add_argument("--jobs", type=int, metavar="N", help="compilers at a time")
    command.add_argument(
        "--dry-run", action="store_true", help="print every step; needs neither engine nor store"
    )


def _example(command: Parser) -> None:
    command.add_argument("action", choices=["list"])


def _plan(command: Parser) -> None:
    _what_to_run(command)
    command.add_argument("--release", required=True, metavar="R", help="a TensorRT-LLM release")
    command.add_argument("--shell", action="store_true", help="as a script that runs by hand")
    command.add_argument("--memory", action="store_true", help="what each rank needs, and why")
    command.add_argument("--gpu", metavar="NAME", help="with --memory: H200, 'A100 80GB'")
    command.add_argument(
        "--kv-fraction",
        type=float,
        metavar="F",
        help="with --memory: of the free memory, for the cache, 0 to 1",
    )


def _run(command: Parser) -> None:
    _what_to_run(command)
    command.add_argument("--stack", required=True, metavar="S")
    command.add_argument("--release", metavar="R", help="where the stack has several")
    command.add_argument("--gpus", default="none", metavar="GPUS", help="none, all, 0,1 or UUIDs")
    command.add_argument("--output", metavar="DIR", help="instead of runs/EXAMPLE/RELEASE/TIME")
    command.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="STEP",
        help="these steps of the plan; what they need is taken from earlier runs",
    )
    command.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN_FOLDER",
        help="go on with the latest run that failed or was killed, or with the one in a folder",
    )
    command.add_argument(
        "--no-reuse",
        action="store_true",
        help="convert again even if an earlier run has the same checkpoint",
    )
    command.add_argument(
        "--allow-pickle", action="store_true", help="weights may be pickles, which can run code"
    )
    command.add_argument(
        "--triton-stack", metavar="S", help="whose image serves, if not the one of the tables"
    )


def _manifest(command: Parser) -> None:
    actions = ["show", "verify", "diff", "sbom", "provenance"]
    command.add_argument("action", choices=actions)
    command.add_argument(
        "paths", nargs="+", metavar="MANIFEST", help="sbom and provenance: or the name of a stack"
    )
    command.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="verify a receipt: the .pub of a site that has to have signed it",
    )
    command.add_argument(
        "--bundle", metavar="DIR", help="verify a receipt: the bundle, or its bundle.json"
    )


def _reproduce(command: Parser) -> None:
    command.add_argument("manifest", metavar="MANIFEST", help="or the folder of its run")
    command.add_argument("--require", metavar="LEVEL", help="L0 to L8; exit 4 below it")
    command.add_argument(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="L7: how far a logit may be off, of the largest one; by the engine's type without it",
    )
    command.add_argument("--gpus", metavar="GPUS", help="none, all, 0,1; as recorded without it")
    command.add_argument("--report", metavar="FILE", help="write the report as one HTML file")
    command.add_argument("--output", metavar="DIR", help="instead of runs/reproductions")
    command.add_argument("--config", metavar="FILE", help="the recipe, where it is your own")
    command.add_argument("--model", metavar="DIR", help="the model, where no stack locks it")
    command.add_argument("--dataset", metavar="DIR", help="what an evaluation reads")
    command.add_argument("--allow-pickle", action="store_true", help="weights may be pickles")
    command.add_argument(
        "--receipt", metavar="FILE", help="add the result to a receipt of `kit bundle load`"
    )
    command.add_argument("--sign-with", metavar="KEY", help="sign the receipt")


def _triton(command: Parser) -> None:
    command.add_argument("action", choices=["repository", "serve", "check"])
    command.add_argument(
        "target", nargs="?", metavar="REPOSITORY|URL", help="serve, check: what to serve or to ask"
    )
    command.add_argument("--engine", metavar="DIR", help="where the repository does not say")
    command.add_argument("--tokenizer", metavar="DIR", help="the model's folder has it")
    command.add_argument("--release", metavar="R", help="where the engine does not say")
    command.add_argument("--stack", metavar="S", help="whose image, if not the one of the tables")
    command.add_argument("--gpus", default="none", metavar="GPUS", help="none, all, 0,1 or UUIDs")
    command.add_argument("--output", metavar="DIR", help="repository: the folder to make")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="MODEL.PARAMETER=VALUE",
        help="repository: a placeholder of that version's config.pbtxt",
    )
    for name, port in (("http", 8000), ("grpc", 8001), ("metrics", 8002)):
        text = "serve: on loopback" + ("; check: of the server" if name == "metrics" else "")
        command.add_argument(f"--{name}-port", type=int, default=port, metavar="N", help=text)
    command.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="check: to be answered"
    )
    command.add_argument(
        "--max-tokens", type=int, default=16, metavar="N", help="check: of answers"
    )
    command.add_argument("--end-id", type=int, metavar="N", help="check URL: that ends an answer")
    command.add_argument("--stream", action="store_true", help="check: piece by piece")
    command.add_argument(
        "--model-name",
        dest="served_model",
        default="ensemble",
        metavar="NAME",
        help="check: which model, such as tensorrt_llm_bls",
    )


def _slurm(command: Parser) -> None:
    _what_to_run(command)
    command.add_argument("--stack", required=True, metavar="S")
    command.add_argument("--release", metavar="R", help="where the stack has several")
    command.add_argument("--partition", metavar="P")
    command.add_argument("--account", metavar="A")
    command.add_argument("--time", metavar="T", help="at most: 90, 1:30:00, 2-12:00")
    command.add_argument("--gpus-per-node", type=int, metavar="N", help="none without it")
    command.add_argument(
        "--runs", metavar="DIR", help="of the run, instead of runs/EXAMPLE/RELEASE"
    )
    command.add_argument("--resume", action="store_true", help="go on with the run of an ended job")
    command.add_argument("--no-reuse", action="store_true", help="convert in any case")
    command.add_argument("--allow-pickle", action="store_true", help="weights may be pickles")
    command.add_argument("--triton-stack", metavar="S", help="whose image serves")
    command.add_argument("--output", metavar="FILE", help="write the script instead of printing it")
    command.add_argument("--submit", action="store_true", help="hand it to sbatch, print the job")
    command.set_defaults(further=[])
    command.rest = "further"


def _verify_compat(command: Parser) -> None:
    command.add_argument("--release", metavar="R", help="a TensorRT-LLM release")
    command.add_argument("--triton", metavar="TAG", help="24.12, a tag, or a full image name")
    command.add_argument("--stack", metavar="S", help="the built image of a stack, and its lock")
    command.add_argument("--image", metavar="REF", help="of the engine, an OCI layout, an archive")
    command.add_argument("--engine", metavar="DIR", help="an engine directory, any era")
    command.add_argument("--checkpoint", metavar="DIR")
    command.add_argument("--model-repository", metavar="DIR", help="of Triton")
    command.add_argument("--source", metavar="DIR", help="a checkout of TensorRT-LLM")
    command.add_argument("--wheel", metavar="FILE")
    command.add_argument("--manifest", metavar="FILE", help="the record of a run")
    command.add_argument("--lock", metavar="FILE")
    command.add_argument("--bundle", metavar="DIR", help="the run and the lock that it carries")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--host", action="store_true", help="this host")
    where.add_argument("--host-facts", metavar="FILE", help="of `kit doctor --export`")
    command.add_argument("--gpu", metavar="NAME|CC", help="H100, 9.0, sm_90")
    command.add_argument("--strict", action="store_true", help="unknown counts as incompatible")
    command.add_argument(
        "--explain",
        metavar="RULE",
        nargs="?",
        const="",
        help="what a rule holds and where that comes from; without a name, all rules",
    )


def _bundle(command: Parser) -> None:
    actions = ["create", "verify", "load", "list", "push", "export"]
    command.add_argument("action", choices=actions)
    command.add_argument("bundle", nargs="?", metavar="BUNDLE", help="its folder")
    command.add_argument("target", nargs="?", metavar="REGISTRY", help="push: host/prefix")
    command.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        help="create: private key that signs; verify, load: the sender's .pub, "
        "instead of those in KIT_HOME/trusted-keys",
    )
    command.add_argument("--jobs", type=int, metavar="N", help="threads, by default one a core")
    what = command.add_argument_group("create")
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
    site = command.add_argument_group("verify, load, export")
    site.add_argument("--receipt", metavar="FILE", help="what was found, to send back")
    site.add_argument("--sign-with", metavar="KEY", help="sign the receipt")
    site.add_argument(
        "--allow-rollback", action="store_true", help="load an older delivery than the last"
    )
    site.add_argument("--to", metavar="FORMAT", help="export: hauler or zarf")


def _doctor(command: Parser) -> None:
    command.add_argument("--export", metavar="FILE", help="write the facts, for --host-facts")
    command.add_argument("--gpu", action="store_true", help="a host without a GPU is not able")


def _inspect(command: Parser) -> None:
    command.add_argument("path", metavar="PATH|IMAGE")
    command.add_argument(
        "more", nargs="*", metavar="FOLDER", help="further folders with parts of a bundle"
    )


def _diagnose(command: Parser) -> None:
    command.add_argument("log", nargs="?", metavar="LOG", help="standard input without it")
    command.add_argument("--release", metavar="R", help="the fix for this release")


def _check_command(command: Parser) -> None:
    command.add_argument("--release", metavar="R", help="a TensorRT-LLM release")
    command.add_argument("--any", action="store_true", help="which releases accept it")
    command.add_argument("--script", metavar="PATH", help="the script that a bare file name means")
    command.add_argument(
        "command", nargs="*", metavar="COMMAND", help="one quoted string, or words after --"
    )


def _what_to_run(command: Parser) -> None:
    command.add_argument("example", nargs="?", metavar="EXAMPLE", help="as kit example list says")
    command.add_argument("--config", metavar="FILE", help="a recipe or a buildconfig.yaml instead")
    command.add_argument(
        "--model", metavar="DIR|FILE", help="a model of your own, as a folder or a .nemo file"
    )
    command.add_argument("--dataset", metavar="DIR", help="what an evaluation reads")


def _stack(command: Parser) -> None:
    command.add_argument(
        "stack",
        nargs="?",
        metavar="STACK",
        help="by default the newest TensorRT-LLM on a host with an NVIDIA GPU, else rehearsal",
    )


COMMANDS = (
    Command("lock", "resolve a stack's intent into a lock", "kit lock rehearsal", _lock),
    Command("fetch", "download what a lock names", "kit fetch rehearsal", _fetch),
    Command("build", "build a stack's image, network off", "kit build rehearsal", _build),
    Command("example", "what can be run", "kit example list", _example),
    Command(
        "plan",
        "the exact commands of an example",
        "kit plan gpt2-tiny --release 0.16.0 --shell",
        _plan,
    ),
    Command(
        "run",
        "run an example in a stack's container and record the manifest",
        "kit run gpt2-tiny --stack rehearsal --release 0.9.0",
        _run,
    ),
    Command(
        "manifest",
        "read, check, compare records of runs",
        "kit manifest diff A/manifest.json B/manifest.json",
        _manifest,
    ),
    Command(
        "reproduce",
        "run what a manifest records again, network off, and say how far both agree",
        "kit reproduce runs/gpt2-tiny/0.9.0/…/manifest.json --require L6 --report report.html",
        _reproduce,
    ),
    Command(
        "triton",
        "a model repository for an engine; the server over it, on loopback until interrupted; what "
        "a server, or one that is started for it, answers",
        "kit triton repository --engine RUN/engine --tokenizer DIR --output repository && "
        "kit triton serve repository, then kit triton check http://127.0.0.1:8000 --prompt Hello",
        _triton,
    ),
    Command(
        "slurm",
        "a batch script that runs an example in a job of Slurm's, on one node or several; "
        "behind -- stand further options of sbatch",
        "kit slurm gpt-530b-dummy --stack trtllm-0.16.0 --gpus-per-node 8 --time 2:00:00 --submit "
        "-- --constraint=h100",
        _slurm,
    ),
    Command(
        "verify-compat",
        "do they fit together: release, container, image, engine, host … any combination",
        "kit verify-compat --release 0.16.0 --triton 24.12",
        _verify_compat,
    ),
    Command("doctor", "is this host able", "kit doctor --export host.json", _doctor),
    Command("inspect", "which versions are inside", "kit inspect runs/gpt2-tiny/engine", _inspect),
    Command(
        "diagnose", "the first cause of a failure", "kit diagnose --release 0.16.0 x.log", _diagnose
    ),
    Command(
        "check-command",
        "would a release accept a command line",
        "kit check-command --release 0.12.0 -- trtllm-build --max_output_len 10",
        _check_command,
    ),
    Command(
        "bundle",
        "what crosses the air gap: make it, check it, import it",
        "kit bundle create OUT --stack rehearsal --key KEY && kit bundle verify OUT",
        _bundle,
    ),
)
