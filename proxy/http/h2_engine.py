"""The library's state machine of HTTP/2, as the gateway drives it: one checked frame at a time.

What differs from the library as it comes:

- Frames are cut by :mod:`proxy.http.h2_frames`, so that an error in one does not swallow what came before it, and every
  frame can be counted.
- DATA goes through the machine without an object for each frame, in both directions: at full speed those objects are
  what the interpreter would be busy with.
- A message that is malformed is an error of its stream, not of the connection, which carries the requests of others
  (RFC 9113 section 8.1.1): heads and lengths are checked by :mod:`proxy.http.h2_heads`, not by the library.
- Streams that have ended are forgotten at once. The library looks through all of them whenever one begins, and
  remembers 65,536 that have ended for each connection.
- GOAWAY is not told to it: afterwards it would carry nothing more, not even the streams that are to end well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionInputs, H2Connection, _decode_headers
from h2.events import Event, InformationalResponseReceived, RequestReceived, ResponseReceived, TrailersReceived
from h2.exceptions import StreamClosedError, StreamIDTooLowError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream, StreamInputs
from hpack.struct import Header
from hyperframe.frame import Frame, HeadersFrame, SettingsFrame

from proxy.http.h2_frames import END_STREAM, LARGEST_FRAME, Kind, header, window_update

_UNLIMITED = 2**31 - 1
_STANDARD_TABLE = 4_096
"""Bytes of a table of headers (RFC 9113 section 6.5.2)."""
_KNOWN_SETTINGS = frozenset(int(code) for code in SettingCodes)

HeadersReceived = RequestReceived | ResponseReceived | InformationalResponseReceived | TrailersReceived


class EngineStream(H2Stream):
    """The lengths of bodies are for :mod:`proxy.http.h2_stream` to check."""

    def _initialize_content_length(self, headers: Iterable[Header]) -> None:
        pass


class Engine(H2Connection):
    MAX_CLOSED_STREAMS = 256

    def __init__(self, *, client: bool, window: int, longest_list: int, emit: Callable[[bytes], None]) -> None:
        """``window``: of each stream, in bytes. ``longest_list``: of a decoded list of headers, where the connection
        ends. ``emit`` gets what is to be sent, in order.
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
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = EngineStream
        return stream

    # --- receiving ----------------------------------------------------------------------------------------------

    def take(self, frame: Frame) -> list[Event]:
        """Any frame but DATA, GOAWAY, PING. :raises h2.exceptions.ProtocolError: an error of the connection."""
        events: list[Event] = self._receive_frame(frame)
        return events

    def take_headers(self, stream_id: int, block: bytes, *, end: bool) -> HeadersReceived:
        """A whole block of headers, of a stream whose peer has not ended it.

        :raises h2.exceptions.ProtocolError: an error of the connection.
        """
        frame = HeadersFrame(stream_id, block)
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        event = self.take(frame)[0]
        assert isinstance(event, HeadersReceived)
        return event

    def drop_headers(self, block: bytes) -> None:
        """They change the table of headers all the same."""
        _decode_headers(self.decoder, block)

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

    def give_back(self, stream_id: int, length: int) -> None:
        """So many bytes have been taken by the other side; the peer may send as many more. Updates are sent when they
        are worth a frame.

        :param stream_id: 0 where only the connection goes on.
        """
        increment = self._inbound_flow_control_window_manager.process_bytes(length)
        if increment:
            self._emit(window_update(0, increment))
        if stream_id and (stream := self.streams.get(stream_id)) is not None:
            increment = stream._inbound_window_manager.process_bytes(length)
            if increment:
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
