"""The part of google-re2 that this project uses."""

class error(Exception): ...  # noqa: N801, N818

class Options:
    log_errors: bool

class _Match: ...

class _Regexp:
    def search(self, text: str) -> _Match | None: ...
    def fullmatch(self, text: str) -> _Match | None: ...

def compile(pattern: str, options: Options | None = None) -> _Regexp: ...
