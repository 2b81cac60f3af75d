"""The selectors of filters are Consul's, all of them and no others."""

from __future__ import annotations

from collections.abc import Iterator

from plugin.assemble.bexpr_fields import ENTRY, Kind, List, Map, Struct

CONSUL_1_21 = """
    Checks Checks.CheckID Checks.ExposedPort Checks.Interval Checks.Name Checks.Node Checks.Notes Checks.Output
    Checks.PeerName Checks.ServiceID Checks.ServiceName Checks.ServiceTags Checks.Status Checks.Timeout Checks.Type
    Node Node.Address Node.Datacenter Node.ID Node.Meta Node.Meta.* Node.Node Node.Partition Node.PeerName
    Node.TaggedAddresses Node.TaggedAddresses.* Service Service.Address Service.Connect Service.Connect.Native
    Service.EnableTagOverride Service.ID Service.Kind Service.Meta Service.Meta.* Service.PeerName Service.Port
    Service.Proxy Service.Proxy.AccessLogs Service.Proxy.AccessLogs.DisableListenerLogs
    Service.Proxy.AccessLogs.Enabled Service.Proxy.AccessLogs.JSONFormat Service.Proxy.AccessLogs.Path
    Service.Proxy.AccessLogs.TextFormat Service.Proxy.AccessLogs.Type Service.Proxy.DestinationServiceID
    Service.Proxy.DestinationServiceName Service.Proxy.EnvoyExtensions Service.Proxy.EnvoyExtensions.ConsulVersion
    Service.Proxy.EnvoyExtensions.EnvoyVersion Service.Proxy.EnvoyExtensions.Name
    Service.Proxy.EnvoyExtensions.Required Service.Proxy.Expose Service.Proxy.Expose.Checks
    Service.Proxy.Expose.Paths Service.Proxy.Expose.Paths.ListenerPort Service.Proxy.Expose.Paths.LocalPathPort
    Service.Proxy.Expose.Paths.ParsedFromCheck Service.Proxy.Expose.Paths.Path Service.Proxy.Expose.Paths.Protocol
    Service.Proxy.LocalServiceAddress Service.Proxy.LocalServicePort Service.Proxy.LocalServiceSocketPath
    Service.Proxy.MeshGateway Service.Proxy.MeshGateway.Mode Service.Proxy.Mode Service.Proxy.TransparentProxy
    Service.Proxy.TransparentProxy.DialedDirectly Service.Proxy.TransparentProxy.OutboundListenerPort
    Service.Proxy.Upstreams Service.Proxy.Upstreams.Datacenter Service.Proxy.Upstreams.DestinationName
    Service.Proxy.Upstreams.DestinationNamespace Service.Proxy.Upstreams.DestinationPartition
    Service.Proxy.Upstreams.DestinationPeer Service.Proxy.Upstreams.DestinationType
    Service.Proxy.Upstreams.LocalBindAddress Service.Proxy.Upstreams.LocalBindPort
    Service.Proxy.Upstreams.LocalBindSocketMode Service.Proxy.Upstreams.LocalBindSocketPath
    Service.Proxy.Upstreams.MeshGateway Service.Proxy.Upstreams.MeshGateway.Mode Service.Service Service.SocketPath
    Service.TaggedAddresses Service.TaggedAddresses.* Service.TaggedAddresses.*.Address
    Service.TaggedAddresses.*.Port Service.Tags Service.Weights Service.Weights.Passing Service.Weights.Warning
"""
"""What go-bexpr finds in Consul's ``CheckServiceNode``; ``*`` is any key of a map."""


def test_the_selectors_are_those_of_consul() -> None:
    assert sorted(set(selectors(ENTRY))) == sorted(CONSUL_1_21.split())


def selectors(kind: Kind, above: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(kind, Struct):
        for name, (_, field) in kind.fields.items():
            yield ".".join((*above, name))
            yield from selectors(field, (*above, name))
    elif isinstance(kind, Map):
        yield ".".join((*above, "*"))
        yield from selectors(kind.value, (*above, "*"))
    elif isinstance(kind, List):
        yield from selectors(kind.element, above)
