"""The text format of protocol buffers: what is written is read back, what is wrong has a place."""

import contextlib
import random
import string

import pytest

from kit.artifacts import pbtxt
from kit.artifacts.pbtxt import Field, Message, Placeholder, Word
from kit.errors import ExitCode, KitError


def parse(text):
    return pbtxt.parse(text, "config.pbtxt")


def shape(message):
    """A message without the places of its fields."""
    return [
        (field.name, shape(field.value) if isinstance(field.value, Message) else field.value)
        for field in message.fields
    ]


def test_a_configuration():
    found = parse(
        """
        # comment
        name: "tensorrt_llm"
        backend: 'tensorrtllm'  # and another
        max_batch_size: 0x10,
        model_transaction_policy { decoupled: True };
        input [
          { name: "input_ids" data_type: TYPE_INT32 dims: [ -1 ] },
          < name: "input_" 'lengths'
            "\\x21\\101\\n" dims: [ ] >
        ]
        parameters: { key: "a" value: { string_value: "${engine_dir}" } }
        [example.com/kit.Type] { x: 1.5f y: -inf z: 0777 w: 1e3 }
        instance_group [ { count: ${count} kind : KIND_CPU } ]
        """
    )
    assert (found.text("name"), found.text("backend")) == ("tensorrt_llm", "tensorrtllm")
    assert found.integer("max_batch_size") == 16
    assert found.messages("model_transaction_policy")[0].boolean("decoupled") is True
    first, second = found.messages("input")
    assert (first.last("data_type"), first.all("dims")) == (Word("TYPE_INT32"), (-1,))
    assert (second.text("name"), second.all("dims")) == ("input_lengths!A\n", ())
    extension = found.messages("[example.com/kit.Type]")[0]
    assert shape(extension) == [("x", 1.5), ("y", Word("-inf")), ("z", 511), ("w", 1000.0)]
    assert found.messages("instance_group")[0].last("count") == Placeholder("count")
    assert [field.line for field in found.fields][:3] == [3, 4, 5]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a", "1:2"),
        ("a:", "1:3"),
        ("a 1", "1:3"),
        ("a { b: 1", "1:9"),
        ("a: 1 }", "1:6"),
        ('\n\n  a: "x', "3:6"),
        ("a: 'x\n'", "1:4"),
        ("a: [1, ]", "1:8"),
        ("a: [1 2]", "1:7"),
        ("a: 08", "1:4"),
        ("a: 1x", "1:4"),
        ("a: --1", "1:5"),
        ("a: -TYPE", "1:5"),
        ("a: $b", "1:4"),
        ("a: {b}", "1:6"),
        ('a: "\\q"', "1:5"),
        ('a: "\\777"', "1:5"),
        ('a: "\\U00110000"', "1:5"),
        ("a: 1 ,, b: 2", "1:7"),
        ("[]: 1", "1:2"),
        ("a { b: 1 >", "1:10"),
        ("\0", "1:1"),
        ("a: " + "9" * 100, "1:4"),
    ],
)
def test_what_is_wrong_has_a_place(text, place):
    with pytest.raises(KitError) as error:
        parse(text)
    assert error.value.exit_code == ExitCode.CONTENT
    assert str(error.value).startswith(f"config.pbtxt:{place}: not protobuf text: expected ")


def test_depth_and_size_have_an_end():
    deepest = pbtxt.DEPTH_LIMIT
    parse("a {" * deepest + "}" * deepest)
    for text in ("a {" * 100_000, "a: [" * 100_000, "a { " * (deepest + 1) + "}" * (deepest + 1)):
        with pytest.raises(KitError):
            parse(text)
    with pytest.raises(KitError):
        parse(" " * (pbtxt.SIZE_LIMIT + 1))


def test_many_fields_take_no_square_of_time():
    assert len(parse("a:1\n" * 200_000).fields) == 200_000
    with pytest.raises(KitError):
        parse('a: "' + "\\" * 500_001)


WORDS = ["TYPE_FP32", "true", "inf", "KIND_GPU", "x"]


def value(chance, depth):
    kind = chance.randrange(7 if depth else 6)
    if kind == 0:
        return "".join(chance.choice(string.printable + "\0\x7fäß€𝄞\"'\\") for _ in range(8))
    if kind == 1:
        return chance.randint(-(2**63), 2**64)
    if kind == 2:
        return chance.choice([0.5, -1e300, 2.5e-7, 123456.789])
    if kind == 3:
        return Word(chance.choice(WORDS))
    if kind == 4:
        return Placeholder(chance.choice(["engine_dir", "a_1"]))
    if kind == 5:
        return chance.randint(0, 9)
    return message(chance, depth - 1)


def message(chance, depth):
    names = ["name", "parameters", "_a", "B2", "[kit.ext]"]
    count = chance.randrange(5)
    return Message(
        tuple(Field(chance.choice(names), value(chance, depth), 0, 0) for _ in range(count))
    )


def text_of(chance, found):
    """The text of a value, in one of the spellings that the format has for it."""
    if isinstance(found, Message):
        start, end = chance.choice(["{}", "<>"])
        return f"{start}{chance.choice([' ', chr(10)])}{lines(chance, found)}{end}"
    if isinstance(found, Word):
        return found.name
    if isinstance(found, Placeholder):
        return f"${{{found.name}}}"
    if isinstance(found, str):
        cut = chance.randint(0, len(found))
        return f"{quoted(chance, found[:cut])}{chance.choice(['', ' ', '# x' + chr(10)])}{quoted(chance, found[cut:])}"
    if isinstance(found, int) and found >= 0 and chance.random() < 0.3:
        return chance.choice([hex(found), f"0{found:o}"])
    return repr(found)


def quoted(chance, found):
    mark = chance.choice("\"'")
    out = []
    for sign in found:
        if sign in "\\\n" or sign == mark or chance.random() < 0.2:
            out.append("".join(f"\\{byte:03o}" for byte in sign.encode()))
        else:
            out.append(sign)
    return mark + "".join(out) + mark


def lines(chance, found):
    out = []
    for field in found.fields:
        colon = chance.choice(["", ":", " : "]) if isinstance(field.value, Message) else ":"
        written = text_of(chance, field.value)
        if chance.random() < 0.3:
            written = f"[ {written} ]"
        out.append(
            f"{field.name}{colon} {written}{chance.choice(['', ',', ';', ' # c: {' + chr(10)])}"
        )
    return "\n".join(out) + "\n"


def test_what_is_written_is_read_back():
    chance = random.Random(11)
    for _ in range(400):
        wanted = message(chance, 4)
        assert shape(parse(lines(chance, wanted))) == shape(wanted)


def test_any_cut_and_any_flip_is_a_message_or_an_error():
    chance = random.Random(12)
    for _ in range(60):
        text = lines(chance, message(chance, 3))
        for _ in range(20):
            at = chance.randrange(len(text) + 1)
            broken = chance.choice(
                [text[:at], text[:at] + chance.choice("{}<>[]\"'\\:,$#-0") + text[at:]]
            )
            with contextlib.suppress(KitError):  # anything else is a bug
                parse(broken)
