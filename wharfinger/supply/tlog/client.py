"""A client of a tile log that is served over HTTPS (C2SP tlog-tiles), and of our way to add to it.

What it reads is checked against a signed checkpoint: tiles lead to its root, or nothing is returned.
"""

from __future__ import annotations

from wharfinger.core.document import parse_json
from wharfinger.core.errors import TooLarge, Unverified
from wharfinger.identity.source import SvidSource
from wharfinger.identity.spiffeid import SpiffeId
from wharfinger.identity.tls import client_context
from wharfinger.supply.bundle import LARGEST_BUNDLE, Bundle
from wharfinger.supply.channel import Channel
from wharfinger.supply.tlog.checkpoint import Checkpoint, open_checkpoint
from wharfinger.supply.tlog.memory import Memory
from wharfinger.supply.tlog.merkle import consistency_proof, range_hash
from wharfinger.supply.tlog.note import LONGEST_NOTE, VerifierKey
from wharfinger.supply.tlog.tiles import WIDTH, Tile, fold, split_entries, split_hashes, tile_over

_LARGEST_TILE = WIDTH * 65537


class LogClient:
    """Speaks to the log below `/log/` on `host` and `port` as the identity that `source` holds; threads share it.

    `expect` is the server's SPIFFE ID, by default the part `registry` of the source's own trust domain; `channel`
    replaces all of it, for tests. `memory`, where given, is asked about every checkpoint. Methods raise `Denied`,
    `Unavailable`, `Malformed`, and `Unverified` for a log that was rolled back or forked.
    """

    def __init__(
        self,
        host: str,
        port: int,
        source: SvidSource | None,
        key: VerifierKey,
        *,
        expect: SpiffeId | None = None,
        memory: Memory | None = None,
        channel: Channel | None = None,
    ) -> None:
        if channel is None:
            assert source is not None, "a client needs an identity"
            wanted = expect or SpiffeId.part(source.material().svid.id.trust_domain, "registry")
            channel = Channel(host, port, client_context(source, expect=wanted), "log")
        self._channel = channel
        self._key = key
        self._memory = memory

    def append(self, bundle: Bundle) -> Bundle:
        """Have the signature of `bundle` logged; return the bundle with its entry. Control only."""
        headers = {"Content-Type": "application/json"}
        with self._channel.ask("POST", "/log/entries", headers=headers, body=bundle.encode()) as answer:
            data = self._channel.read(answer, LARGEST_BUNDLE)
        logged = Bundle.of_json(parse_json(data, limit=LARGEST_BUNDLE))
        if (logged.envelope, logged.material) != (bundle.envelope, bundle.material):
            raise Unverified("log: expected the bundle that was sent, got another")
        return logged

    def checkpoint(self) -> Checkpoint:
        """Return the log's newest checkpoint, verified, and consistent with the one remembered."""
        if self._memory is not None:
            return self._memory.follow(self._note, lambda seen, size: self.consistency(size, seen))
        return open_checkpoint(self._note(), self._key.name, [self._key])

    def consistency(self, size: int, checkpoint: Checkpoint) -> list[bytes]:
        """Return the proof that the tree of `size` leaves, at least 1, is a prefix of that of `checkpoint`."""
        return consistency_proof(size, checkpoint.size, _Nodes(self, checkpoint.size))

    def entries(self, checkpoint: Checkpoint, start: int = 0) -> list[bytes]:
        """Return the entries from the index `start` to the end of its bundle. Not checked against the tree."""
        number = start // WIDTH
        tile = Tile(None, number, min(WIDTH, checkpoint.size - number * WIDTH))
        return split_entries(self.tile(tile), tile)[start % WIDTH :]

    def root(self, checkpoint: Checkpoint) -> bytes:
        """Return the root that the log's tiles lead to. Raises `Unverified` when it is not the checkpoint's."""
        found = range_hash(0, checkpoint.size, _Nodes(self, checkpoint.size))
        if found != checkpoint.root:
            raise Unverified(f"log: its tiles do not lead to its checkpoint of {checkpoint.size} entries")
        return found

    def tile(self, tile: Tile) -> bytes:
        """Return the bytes of a tile as the log gives them."""
        return self._channel.get(f"/log/{tile.path}", limit=_LARGEST_TILE)

    def _note(self) -> bytes:
        return self._channel.get("/log/checkpoint", accept="text/plain", limit=LONGEST_NOTE)

    def close(self) -> None:
        """Close this thread's connection."""
        self._channel.close()


class _Nodes:
    """The perfect subtrees of a log of `size` (`merkle.Nodes`), fetched tile by tile, each once."""

    def __init__(self, client: LogClient, size: int) -> None:
        self._client = client
        self._size = size
        self._tiles: dict[Tile, list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        tile, start, end = tile_over(level, index, self._size)
        if tile not in self._tiles:
            if len(self._tiles) > 1024:
                raise TooLarge("log: expected a proof from at most 1024 tiles")
            self._tiles[tile] = split_hashes(self._client.tile(tile), tile)
        return fold(self._tiles[tile][start:end])
