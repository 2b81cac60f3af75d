from __future__ import annotations

from plugin.linking.hcl import to_hcl


def test_an_entry_as_people_write_it() -> None:
    entry = {
        "Kind": "x",
        "Services": [{"Name": 'a"b', "On": True, "None": None}, {}],
        "Meta": {"managed-by": "me", "1 key": "ü\n"},
        "Numbers": [1, 2.5],
        "Nothing": None,
        "Empty": [],
    }
    assert to_hcl(entry) == (
        'Kind = "x"\n'
        "Services = [\n"
        "  {\n"
        '    Name = "a\\"b"\n'
        "    On = true\n"
        "  },\n"
        "  {},\n"
        "]\n"
        "Meta = {\n"
        '  managed-by = "me"\n'
        '  "1 key" = "ü\\n"\n'
        "}\n"
        "Numbers = [1, 2.5]\n"
        "Empty = []\n"
    )


def test_a_text_that_looks_like_an_interpolation_is_a_text() -> None:
    assert to_hcl({"Path": "/x/${y}.pem"}) == 'Path = "/x/\\u0024{y}.pem"\n'
