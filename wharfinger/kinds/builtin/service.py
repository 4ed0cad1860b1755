"""Service: a name for pods; schema."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int_or_string,
    keyed,
    many,
    one,
    one_of,
    record,
    string,
    string_map,
    strings,
    whole,
)
from wharfinger.kinds.builtin.meta import CONDITION
from wharfinger.kinds.kind import Kind

_PORT = record(
    "core.v1.ServicePort",
    "A port of the service.",
    {
        "appProtocol": string("What is spoken on it."),
        "name": string("Its name; needed when there are several."),
        "nodePort": int32("Port on every node.", minimum=0, maximum=65535),
        "port!": int32("The port.", minimum=1, maximum=65535),
        "protocol": one_of("Protocol.", "TCP", "UDP", "SCTP", default="TCP"),
        "targetPort": int_or_string("Port of the pods, by number or name; the same when absent."),
    },
)

_INGRESS = record(
    "core.v1.LoadBalancerIngress",
    "Where it is reached from outside.",
    {
        "hostname": string("Host name."),
        "ip": string("Address."),
        "ipMode": string("VIP or Proxy."),
        "ports": many(
            record(
                "core.v1.PortStatus",
                "How one port is.",
                {"error": string("What is wrong."), "port!": int32("The port."), "protocol!": string("Protocol.")},
            ),
            "How the ports are.",
        ),
    },
)

SERVICE = Kind(
    group="",
    version="v1",
    name="Service",
    plural="services",
    namespaced=True,
    short_names=("svc",),
    categories=("all",),
    description="A name under which pods are reached.",
    selectable=("spec.clusterIP", "spec.type"),
    schema=whole(
        "core.v1.Service",
        "A name under which pods are reached.",
        {
            "spec": record(
                "core.v1.ServiceSpec",
                "Which pods, by which ports.",
                {
                    "allocateLoadBalancerNodePorts": boolean("Give a load balancer ports of the nodes."),
                    "clusterIP": string("Its address in the cluster; None for none."),
                    "clusterIPs": strings("Its addresses, one a family."),
                    "externalIPs": strings("Addresses of nodes that also lead here."),
                    "externalName": string("The DNS name it stands for (ExternalName)."),
                    "externalTrafficPolicy": string("Cluster or Local."),
                    "healthCheckNodePort": int32("Port for the load balancer's health check."),
                    "internalTrafficPolicy": string("Cluster or Local."),
                    "ipFamilies": strings("IPv4, IPv6."),
                    "ipFamilyPolicy": string("SingleStack, PreferDualStack or RequireDualStack."),
                    "loadBalancerClass": string("Who balances."),
                    "loadBalancerIP": string("Address wanted from the load balancer."),
                    "loadBalancerSourceRanges": strings("Who may come through the load balancer."),
                    "ports": keyed(_PORT, "Its ports.", "port", "protocol"),
                    "publishNotReadyAddresses": boolean("Lead to pods that are not ready, too."),
                    "selector": string_map("Labels of its pods.", atomic=True),
                    "sessionAffinity": string("ClientIP or None.", default="None"),
                    "sessionAffinityConfig": record(
                        "core.v1.SessionAffinityConfig",
                        "How long a client stays with a pod.",
                        {
                            "clientIP": record(
                                "core.v1.ClientIPConfig", "By address.", {"timeoutSeconds": int32("Seconds.")}
                            )
                        },
                    ),
                    "trafficDistribution": string("Which pods are better."),
                    "type": one_of(
                        "How far it is reached.",
                        "ClusterIP",
                        "NodePort",
                        "LoadBalancer",
                        "ExternalName",
                        default="ClusterIP",
                    ),
                },
            ),
            "status": record(
                "core.v1.ServiceStatus",
                "How it is.",
                {
                    "conditions": keyed(one(CONDITION, "What holds, and why not."), "What holds, and why not.", "type"),
                    "loadBalancer": record(
                        "core.v1.LoadBalancerStatus",
                        "The load balancer.",
                        {"ingress": many(_INGRESS, "Where it is reached from outside.")},
                    )
                    | {"default": {}},
                },
            ),
        },
    ),
)
