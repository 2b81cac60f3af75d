"""The library's state machine of HTTP/2, as the gateway drives it: one checked frame at a time.

What differs from the library as it comes:

- Frames are cut by :mod:`proxy.http.h2.frames`, so that an error in one does not swallow what came before it, and every
  frame can be counted.
- HEADERS and DATA go through the machine without objects for frames and events, in both directions: those are what the
  interpreter would be busy with.
- A message that is malformed is an error of its stream, not of the connection, which carries the requests of others
  (RFC 9113 section 8.1.1): heads are checked by :mod:`proxy.http.h2.heads`, lengths of bodies by
  :mod:`proxy.http.h2.stream`.
- Streams that have ended are forgotten at once. The library looks through all of them whenever one begins, and
  remembers 65,536 that have ended for each connection.
- GOAWAY is not told to it: afterwards it would carry nothing more, not even the streams that are to end well.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, InformationalResponseReceived, RequestReceived, ResponseReceived, TrailersReceived
from h2.exceptions import DenialOfServiceError, ProtocolError, StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs
from h2.utilities import is_informational_response
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import Decoder
from hyperframe.frame import Frame, SettingsFrame

from proxy.http.h2.frames import END_HEADERS, END_STREAM, LARGEST_FRAME, Kind, header, window_update
from proxy.http.h2.header_lists import HeaderEncoder
from proxy.http.message import Header, Headers


def _say_nothing(*_: object) -> None:
    pass


# At the level debug it would log every header that it reads, tokens and cookies too. A level alone would do, but the
# question whether it is enabled is asked for each integer: twenty times in a request.
logging.getLogger("hpack").setLevel(logging.WARNING)
for _name in ("hpack.hpack", "hpack.table"):
    logging.getLogger(_name).debug = _say_nothing  # type: ignore[assignment]

_UNLIMITED = 2**31 - 1
_STANDARD_TABLE = 4_096
"""Bytes of a table of headers (RFC 9113 section 6.5.2)."""
_KNOWN_SETTINGS = frozenset(int(code) for code in SettingCodes)


class Meaning(enum.Enum):
    """Of a list of headers."""

    REQUEST = "a request"
    RESPONSE = "a final response"
    INTERIM = "an interim response"
    TRAILERS = "trailers"


_MEANINGS: dict[type[Event], Meaning] = {
    RequestReceived: Meaning.REQUEST,
    ResponseReceived: Meaning.RESPONSE,
    InformationalResponseReceived: Meaning.INTERIM,
    TrailersReceived: Meaning.TRAILERS,
}


class CompressionError(ProtocolError):
    """The tables of headers differ from now on (RFC 9113 section 4.3)."""

    error_code = ErrorCodes.COMPRESSION_ERROR


class Engine(H2Connection):
    MAX_CLOSED_STREAMS = 256

    def __init__(
        self, *, client: bool, window: int, largest_window: int, longest_list: int, emit: Callable[[bytes], None]
    ) -> None:
        """
        :param window: of each stream when it begins, in bytes; ``largest_window``: what it may grow to.
        :param longest_list: of a decoded list of headers, in bytes; with a longer one the connection ends.
        :param emit: gets what is to be sent, in order.
        """
        super().__init__(
            H2Configuration(
                client_side=client,
                header_encoding=None,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._emit = emit
        self._largest_window = largest_window
        self.decoder = self._lists = Decoder()
        self.encoder = HeaderEncoder()
        self.local_settings = Settings(
            client=client,
            # How many at a time is for the connection to refuse: here more would end it, and a client may not have
            # read the limit yet.
            initial_values={
                SettingCodes.INITIAL_WINDOW_SIZE: window,
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.MAX_CONCURRENT_STREAMS: _UNLIMITED,
                SettingCodes.MAX_HEADER_LIST_SIZE: longest_list,
            },
        )
        self.decoder.max_header_list_size = longest_list

    # --- what the library does in its own way -------------------------------------------------------------------

    def _prepare_for_sending(self, frames: list[Frame]) -> None:
        for frame in frames:
            self._emit(frame.serialize())

    @property
    def open_outbound_streams(self) -> int:
        return 0

    @property
    def open_inbound_streams(self) -> int:
        return 0

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        outbound = self._stream_id_is_outbound(stream_id)
        highest = self.highest_outbound_stream_id if outbound else self.highest_inbound_stream_id
        if stream_id <= highest:
            raise StreamIDTooLowError(stream_id, highest)
        if stream_id % 2 != allowed_ids:
            raise ProtocolError("a stream whose number is for the other side to give")
        if outbound:
            self.highest_outbound_stream_id = stream_id
        else:
            self.highest_inbound_stream_id = stream_id
        stream = self.streams[stream_id] = H2Stream(
            stream_id,
            config=self.config,
            inbound_window_size=self.local_settings.initial_window_size,
            outbound_window_size=self.remote_settings.initial_window_size,
        )
        return stream

    # --- receiving ----------------------------------------------------------------------------------------------

    def take(self, frame: Frame) -> list[Event]:
        """One that is not so frequent. :raises h2.exceptions.ProtocolError: an error of the connection."""
        events: list[Event] = self._receive_frame(frame)
        return events

    def take_headers(self, stream_id: int, block: bytes, *, end: bool) -> tuple[Meaning, list[Header]]:
        """A whole list of headers, of a stream whose peer has not ended it.

        :raises h2.exceptions.ProtocolError: an error of the connection.
        """
        headers = self._read(block)
        self.state_machine.process_input(ConnectionInputs.RECV_HEADERS)
        client = self.config.client_side
        stream = self._get_or_create_stream(stream_id, AllowedStreamIDs(not client))
        machine = stream.state_machine
        interim = client and is_informational_response(headers)
        received = StreamInputs.RECV_INFORMATIONAL_HEADERS if interim else StreamInputs.RECV_HEADERS
        event = machine.process_input(received)[0]
        meaning = _MEANINGS[type(event)]
        if end:
            if interim:
                raise ProtocolError("an interim response that ends the stream")
            machine.process_input(StreamInputs.RECV_END_STREAM)
        elif meaning is Meaning.TRAILERS:
            raise ProtocolError("trailers that do not end the stream")
        return meaning, headers

    def _read(self, block: bytes) -> list[Header]:
        try:
            return [(name, value) for name, value in self._lists.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise DenialOfServiceError(str(error)) from error
        except HPACKError as error:
            raise CompressionError(str(error)) from error

    def drop_headers(self, block: bytes) -> None:
        """They change the table of headers all the same."""
        self._read(block)

    def take_late_headers(self, stream_id: int, block: bytes) -> None:
        """Of a stream that has ended: they are dropped.

        :raises h2.exceptions.ProtocolError: when they were not on their way while the stream was reset.
        """
        self.drop_headers(block)
        if self._stream_id_is_outbound(stream_id):
            return
        if self._stream_is_closed_by_end(stream_id):
            raise StreamClosedError(stream_id)
        if not self._stream_is_closed_by_reset(stream_id):
            raise StreamIDTooLowError(stream_id, self.highest_inbound_stream_id)

    def take_data(self, stream_id: int, length: int, *, end: bool) -> None:
        """So many bytes of the windows are used up, padding and all.

        :raises h2.exceptions.ProtocolError: an error of the connection.
        """
        stream = self.streams[stream_id]
        self._inbound_flow_control_window_manager.window_consumed(length)
        stream._inbound_window_manager.window_consumed(length)
        stream.state_machine.process_input(StreamInputs.RECV_DATA)
        if end:
            stream.state_machine.process_input(StreamInputs.RECV_END_STREAM)

    def take_late_data(self, length: int) -> None:
        """Of a stream that has ended: it counts in the window of the connection alone, and is given back at once."""
        self._inbound_flow_control_window_manager.window_consumed(length)
        self.give_back(0, length)

    def give_back(self, stream_id: int, length: int, *, grow: bool = False) -> None:
        """So many bytes have been taken by the other side; the peer may send as many more. Updates are sent when they
        are worth a frame.

        :param stream_id: 0 where only the connection goes on.
        :param grow: the stream's window may become twice as large.
        """
        increment = self._inbound_flow_control_window_manager.process_bytes(length)
        if increment:
            self._emit(window_update(0, increment))
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        window = stream._inbound_window_manager
        increment = window.process_bytes(length)
        if increment:
            more = min(window.max_window_size, self._largest_window - window.max_window_size) if grow else 0
            if more > 0:
                window.window_opened(more)
                increment += more
            self._emit(window_update(stream_id, increment))

    def unsent(self, stream_id: int) -> int:
        """Bytes that the peer may still send on a stream, without knowing that it has ended here."""
        return self.streams[stream_id].inbound_flow_control_window

    def take_settings(self, values: list[tuple[int, int]]) -> None:
        """In the order in which they came. Unknown ones are left out: the library would keep each for ever.

        :raises h2.exceptions.ProtocolError: an error of the connection.
        """
        known: dict[int, int] = {}
        for code, value in values:
            if code not in _KNOWN_SETTINGS:
                continue
            if code == SettingCodes.HEADER_TABLE_SIZE:
                # Not more is kept of what was sent, whatever the peer allows. One that is taken back in the same frame
                # counts all the same (RFC 7541 section 4.2).
                value = min(value, _STANDARD_TABLE)
                self.encoder.header_table_size = min(value, self.encoder.header_table_size)
            known[code] = value
        self.take(SettingsFrame(0, settings=known))
        changes = self.encoder.table_size_changes
        if len(changes) > 2:  # the smallest one and the last one are what the peer has to hear of
            self.encoder.table_size_changes = [min(changes), changes[-1]]

    # --- sending ------------------------------------------------------------------------------------------------

    def headers(self, stream_id: int, headers: Headers, *, end: bool) -> None:
        """A head, an interim one, or trailers. A request opens its stream."""
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        client = self.config.client_side
        machine = self._get_or_create_stream(stream_id, AllowedStreamIDs(client)).state_machine
        interim = not client and headers[0][0] == b":status" and headers[0][1].startswith(b"1")
        machine.process_input(StreamInputs.SEND_INFORMATIONAL_HEADERS if interim else StreamInputs.SEND_HEADERS)
        if end:
            machine.process_input(StreamInputs.SEND_END_STREAM)
        block, most = self.encoder.encode(headers), self.max_outbound_frame_size
        flags = END_STREAM if end else 0
        if len(block) <= most:
            self._emit(header(Kind.HEADERS, flags | END_HEADERS, stream_id, len(block)) + block)
            return
        self._emit(header(Kind.HEADERS, flags, stream_id, most) + block[:most])
        for start in range(most, len(block), most):
            piece = block[start : start + most]
            last = END_HEADERS if start + most >= len(block) else 0
            self._emit(header(Kind.CONTINUATION, last, stream_id, len(piece)) + piece)

    def room(self, stream_id: int) -> int:
        """Bytes that may be sent now."""
        window = self.streams[stream_id].outbound_flow_control_window
        return min(window, self.outbound_flow_control_window)

    def data(self, stream_id: int, data: memoryview, *, end: bool) -> bytes:
        """Frames with all of ``data``, for which there is room; the last one ends the stream if it is to."""
        stream = self.streams[stream_id]
        self.state_machine.process_input(ConnectionInputs.SEND_DATA)
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        length = len(data)
        stream.outbound_flow_control_window -= length
        self.outbound_flow_control_window -= length
        if end:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        if length <= LARGEST_FRAME:
            return header(Kind.DATA, END_STREAM if end else 0, stream_id, length) + data
        pieces: list[bytes | memoryview] = []
        for start in range(0, length, LARGEST_FRAME):
            piece = data[start : start + LARGEST_FRAME]
            last = end and start + LARGEST_FRAME >= length
            pieces += (header(Kind.DATA, END_STREAM if last else 0, stream_id, len(piece)), piece)
        return b"".join(pieces)

    def forget(self, stream_id: int) -> None:
        """It has ended: only how is remembered."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self._closed_streams[stream_id] = stream.closed_by
