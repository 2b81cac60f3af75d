"""The part of google-re2 that this project uses."""

class error(Exception): ...

class Options:
    case_sensitive: bool
    log_errors: bool
    max_mem: int
    never_capture: bool

class _Match: ...

class _Regexp:
    def search(self, text: str | bytes) -> _Match | None: ...
    def fullmatch(self, text: str | bytes) -> _Match | None: ...

def compile(pattern: str | bytes, options: Options | None = None) -> _Regexp: ...
