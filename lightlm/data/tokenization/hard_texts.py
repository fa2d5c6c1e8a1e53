"""Texts that break tokenizers: what one must give back as it was, and what two engines must cut
alike.

They hold every byte that UTF-8 has, alone and in company, and what normalizers, splitting rules and
added tokens are known to change or swallow.
"""

from collections.abc import Iterable

TRIAL = "".join(map(chr, range(1, 0x250))) + " \u00e9\u4e2d\u6587 \U0001f600 a\u0301  \r\n\tend"
"""Controls, Latin, Chinese, an emoji, a combining mark, white space, in one text."""

WHITE_SPACE = (
    " ",
    "\n",
    "\t",
    "\r\n",
    "\r",
    " a",
    "a ",
    "  a  b   c    ",
    " \n \n\n  \n",
    "a\r\nb\r\n\r\nc\rd",
    "\tif x:\n\t\treturn  y\n\n\n\tz\n",
    "a\u00a0b\u2009c\u3000d\u2028e\u2029f\u0085g\u000bh\u000ci",
    " " * 300 + "a" + "\n" * 90 + "b" + "\t" * 40,
    "\ufeffa\u200bb\u200dc\u00add\u2060e",
)

WORDS = (
    "I'LL we'd IT'S don't '\u017f 'S 'Ve o'clock",
    "e\u0301 \u00e9 A\u030a \u00c5 \u212b \u1e9b\u0323 q\u0307\u0323 q\u0323\u0307",
    "\ufb01 \uff21\uff22\uff11 \u2460 \u00bd \u00b2 \u2122 \u33a1 \u0132 \u01c5 \u1e9e "
    "\u0130\u0131",
    "\u1112\u1161\u11ab \ud55c \uac00\u11a8",
    "\u0627\u0644\u0633\u0651\u064e\u0644\u0627\u0645\u064f",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u0661\u0662\u0663",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u4e2d\u6587\u3001\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3002 \u30ab\u30bf\u30ab\u30ca "
    "\uff76\uff80\uff76\uff85",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd "
    "\u2764\ufe0f",
    "1 12 123 1234 12345 123456 1234567 1914 and 30000 men, 3.14159e-10 0x7fff 1,000,000.50 "
    "\u0663\u0664\u0665\u0666",
    "x = y+=1; // {z} && (a->b)[0] != '\\n' #tag @user $100 %d ^~`|<>",
    "?!?!\u2026\u2014\u201cquoted\u201d \u00abx\u00bb \u2018y\u2019 -- --- ... !!!\n\n***\n",
    "KING:\u2581thou\u2581hast \u2581 \u2581\u2581a",
    "Aa" * 150 + "!" * 200 + "1" * 100,
)

MARKS = (
    "<0x0A>",
    "<0x41> <0xE2><0x96><0x81>",
    "##ing un##able </w>word</w> word</w>",
    "\u0120the \u010a\u010a \u0120\u0120",
    "<unk> <s> </s> <pad> [UNK] [CLS] [SEP] <|endoftext|> <|im_start|>user<|im_end|>",
    "<|endoftext|>",
    "</s>",
    "a<|endoftext|><|endoftext|>\n<|endoftext|>\nb",
    "\ufffd\ufffe\uffff\U0010ffff",
    "a\x00b\x00\x00 \x1b[0m \x7f \x80\x9f",
)


def _every_byte() -> list[str]:
    """Return characters that hold each byte of UTF-8 between them, each a text alone: a byte is
    easily lost there.
    """
    points = [
        *range(256),
        *range(0x100, 0x800, 0x40),
        *range(0x800, 0xD800, 0x1000),
        0xD000,
        0xE000,
        0xF000,
        0xFFFD,
    ]
    points += [0x10000, 0x40000, 0x80000, 0xC0000, 0x100000]
    return [chr(point) for point in points]


HARD_TEXTS: tuple[str, ...] = (
    "",
    TRIAL,
    "".join(_every_byte()),
    *_every_byte(),
    *WHITE_SPACE,
    *WORDS,
    *MARKS,
)


def surround(tokens: Iterable[str]) -> list[str]:
    """Return texts that hold each of some tokens between blanks, at the start of lines, doubled,
    and inside a word.
    """
    forms = ("{}", "a {} b", "a  {}  b", "\n{}\n", "\t{}\t", "{}{}", "x{}y", " {}")
    return [form.replace("{}", token) for token in tokens for form in forms]
