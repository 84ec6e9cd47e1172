"""The choice of an implementation of `ClusterNodes`, and answers without a trip."""

import fakeredis
import pytest

from proxy.storage.client_factory import StoreClient
from proxy.storage.nodes import ClusterNodes, PipelinedReader, SingleServer, nodes_of
from tests.helpers.store_clients import new_client

URLS = {
    "redis://store.invalid/0": SingleServer,
    "redis+sentinel://watcher.invalid/people": SingleServer,
    "redis+cluster://node.invalid": ClusterNodes,
}


@pytest.mark.parametrize("url", URLS)
def test_nodes_of_chooses_by_the_client_without_a_trip(url: str) -> None:
    """Nothing listens at these names."""
    assert type(nodes_of(new_client(url, 1), "pp:")) is URLS[url]


@pytest.mark.parametrize("url", URLS)
def test_invalidations_are_tracked_on_one_server_only(url: str) -> None:
    """Each node of a Cluster sends those of its own keys."""
    can_track = nodes_of(new_client(url, 1), "pp:").can_track

    assert can_track == (URLS[url] is SingleServer)


def test_single_server_reads_with_the_fast_reader() -> None:
    """A stand-in such as fakeredis has none, and reads with redis-py's commands."""
    client = new_client("redis://store.invalid/0", 1)
    assert isinstance(client, StoreClient)

    assert nodes_of(client, "pp:").reader is client.fast_reader
    fake = nodes_of(fakeredis.FakeRedis(), "pp:")
    assert isinstance(fake.reader, PipelinedReader)


def test_node_name_is_empty_where_nothing_fails_by_itself() -> None:
    """A Cluster whose layout cannot be read has no names for its nodes either."""
    for url in URLS:
        nodes = nodes_of(new_client(url, 1), "pp:")

        assert nodes.node_name("e:{default:1}") == ""
        assert nodes.node_names() == {""}
