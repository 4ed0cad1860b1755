"""Containers of a pod: what runs, with which environment, probes, rights and resources."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int64,
    int_or_string,
    keyed,
    many,
    one,
    one_of,
    quantities,
    record,
    string,
    strings,
    unique,
)
from wharfinger.kinds.builtin.volumes import FIELD_REF, RESOURCE_FIELD_REF
from wharfinger.kinds.kind import Schema

_OPTIONAL = boolean("It may be absent.")


def _key_of(kind: str, what: str) -> Schema:
    return record(
        f"core.v1.{kind}KeySelector",
        f"A key of a {what} of the pod's namespace.",
        {"key!": string("The key."), "name": string(f"The {what}."), "optional": _OPTIONAL},
        atomic=True,
    )


ENV_VAR = record(
    "core.v1.EnvVar",
    "An environment variable.",
    {
        "name!": string("Its name."),
        "value": string("Its value; $(NAME) stands for another variable."),
        "valueFrom": record(
            "core.v1.EnvVarSource",
            "Where the value comes from; exactly one of the fields.",
            {
                "configMapKeyRef": _key_of("ConfigMap", "ConfigMap"),
                "fieldRef": one(FIELD_REF, "A field of the pod."),
                "fileKeyRef": record(
                    "core.v1.FileKeySelector",
                    "A key of a file in a volume.",
                    {
                        "key!": string("The key."),
                        "optional": boolean("The file or key may be absent.", default=False),
                        "path!": string("Relative path of the file."),
                        "volumeName!": string("The volume."),
                    },
                    atomic=True,
                ),
                "resourceFieldRef": one(RESOURCE_FIELD_REF, "A request or limit of a container."),
                "secretKeyRef": _key_of("Secret", "Secret"),
            },
        ),
    },
)

_ENV_FROM = record(
    "core.v1.EnvFromSource",
    "All keys of a ConfigMap or Secret, as variables.",
    {
        "configMapRef": record(
            "core.v1.ConfigMapEnvSource", "The ConfigMap.", {"name": string("Its name."), "optional": _OPTIONAL}
        ),
        "prefix": string("Put before each name."),
        "secretRef": record(
            "core.v1.SecretEnvSource", "The Secret.", {"name": string("Its name."), "optional": _OPTIONAL}
        ),
    },
)

_EXEC = record("core.v1.ExecAction", "Runs a command in the container.", {"command": strings("The command.")})

_HTTP_GET = record(
    "core.v1.HTTPGetAction",
    "Asks an HTTP server.",
    {
        "host": string("Host to ask; the pod when absent."),
        "httpHeaders": many(
            record(
                "core.v1.HTTPHeader",
                "A header to send.",
                {"name!": string("Its name."), "value!": string("Its value.")},
            ),
            "Headers to send.",
        ),
        "path": string("Path to ask for.", default="/"),
        "port!": int_or_string("Port, by number or name."),
        "protocol": string("Version of HTTP to speak."),
        "scheme": string("HTTP or HTTPS.", default="HTTP"),
    },
)

_TCP_SOCKET = record(
    "core.v1.TCPSocketAction",
    "Opens a TCP connection.",
    {"host": string("Host; the pod when absent."), "port!": int_or_string("Port, by number or name.")},
)

_HANDLER = record(
    "core.v1.LifecycleHandler",
    "What to do; exactly one of the fields.",
    {
        "exec": _EXEC,
        "httpGet": _HTTP_GET,
        "sleep": record("core.v1.SleepAction", "Waits.", {"seconds!": int64("How long.")}),
        "tcpSocket": _TCP_SOCKET,
    },
)

LIFECYCLE = record(
    "core.v1.Lifecycle",
    "What to do when the container starts and before it stops.",
    {
        "postStart": one(_HANDLER, "After the start; a failure stops the container."),
        "preStop": one(_HANDLER, "Before the stop signal."),
        "stopSignal": string("The signal that stops it, such as SIGTERM."),
    },
)

PROBE = record(
    "core.v1.Probe",
    "Asks again and again how the container is.",
    {
        "exec": _EXEC,
        "failureThreshold": int32("Failures in a row until it counts as failed.", default=3, minimum=0),
        "grpc": record(
            "core.v1.GRPCAction",
            "Asks by the gRPC health protocol.",
            {
                "mode": string("How to connect."),
                "port!": int32("Port."),
                "service": string("Service to ask about.", default=""),
            },
        ),
        "httpGet": _HTTP_GET,
        "initialDelaySeconds": int32("Seconds before the first question.", minimum=0),
        "periodSeconds": int32("Seconds between questions.", default=10, minimum=0),
        "successThreshold": int32("Successes in a row after a failure until it counts as well.", default=1, minimum=0),
        "tcpSocket": _TCP_SOCKET,
        "terminationGracePeriodSeconds": int64("Seconds to stop in after this probe failed.", minimum=0),
        "timeoutSeconds": int32("Seconds to answer in.", default=1, minimum=0),
    },
)

PORT = record(
    "core.v1.ContainerPort",
    "A port that the container listens on.",
    {
        "containerPort!": int32("The port.", minimum=1, maximum=65535),
        "hostIP": string("Address of the host to bind."),
        "hostPort": int32("Port of the host.", minimum=0, maximum=65535),
        "name": string("Its name, unique in the pod."),
        "protocol": one_of("Protocol.", "TCP", "UDP", "SCTP", default="TCP"),
    },
)

RESOURCES = record(
    "core.v1.ResourceRequirements",
    "What it needs and may use.",
    {
        "claims": keyed(
            record(
                "core.v1.ResourceClaim",
                "A claim of the pod that this uses.",
                {
                    "name!": string("The pod's name for the claim."),
                    "request": string("One request of the claim; all of them when absent."),
                },
            ),
            "Device claims of the pod that this uses.",
            "name",
            patch="",
        ),
        "limits": quantities("At most, by resource."),
        "requests": quantities("At least, by resource; the limit when absent."),
    },
)

SECCOMP = record(
    "core.v1.SeccompProfile",
    "Which system calls are let through.",
    {
        "localhostProfile": string("File with the profile, on the node."),
        "type!": string("RuntimeDefault, Unconfined or Localhost."),
    },
)

APPARMOR = record(
    "core.v1.AppArmorProfile",
    "Which AppArmor profile confines it.",
    {
        "localhostProfile": string("Profile loaded on the node."),
        "type!": string("RuntimeDefault, Unconfined or Localhost."),
    },
)

SELINUX = record(
    "core.v1.SELinuxOptions",
    "SELinux label.",
    {"level": string("Level."), "role": string("Role."), "type": string("Type."), "user": string("User.")},
)

WINDOWS = record(
    "core.v1.WindowsSecurityContextOptions",
    "What applies on Windows.",
    {
        "gmsaCredentialSpec": string("Content of the GMSA credential spec."),
        "gmsaCredentialSpecName": string("Name of the GMSA credential spec."),
        "hostProcess": boolean("Run as a process of the host."),
        "runAsUserName": string("User to run as."),
    },
)

SECURITY_CONTEXT = record(
    "core.v1.SecurityContext",
    "Rights of the container; they go before the pod's.",
    {
        "allowPrivilegeEscalation": boolean("It may gain more rights than its parent."),
        "appArmorProfile": APPARMOR,
        "capabilities": record(
            "core.v1.Capabilities",
            "Linux capabilities.",
            {"add": strings("To add."), "drop": strings("To drop.")},
        ),
        "privileged": boolean("It has the rights of the host's root."),
        "procMount": string("How /proc is mounted."),
        "readOnlyRootFilesystem": boolean("Its root file system is read-only."),
        "runAsGroup": int64("Group id to run as."),
        "runAsNonRoot": boolean("Refuse to run as root."),
        "runAsUser": int64("User id to run as."),
        "seLinuxOptions": SELINUX,
        "seccompProfile": SECCOMP,
        "windowsOptions": WINDOWS,
    },
)

_VOLUME_MOUNT = record(
    "core.v1.VolumeMount",
    "Where a volume is mounted.",
    {
        "bindMountOptions": unique({"type": "string"}, "Options of the bind mount."),
        "mountPath!": string("Path in the container."),
        "mountPropagation": string("How mounts spread between host and container."),
        "name!": string("The volume."),
        "readOnly": boolean("Read-only."),
        "recursiveReadOnly": string("Whether mounts below it are read-only too."),
        "subPath": string("Path in the volume; its root when empty."),
        "subPathExpr": string("The same, with $(NAME) standing for variables."),
    },
)

_RESTART_RULE = record(
    "core.v1.ContainerRestartRule",
    "What to do for certain exits.",
    {
        "action!": string("Restart or RestartAllContainers."),
        "exitCodes": record(
            "core.v1.ContainerRestartRuleOnExitCodes",
            "The exits meant.",
            {
                "operator!": string("In or NotIn."),
                "values": unique({"type": "integer", "format": "int32"}, "Exit codes."),
            },
        ),
    },
)

_FIELDS: dict[str, Schema] = {
    "args": strings("Arguments of the command; the image's when absent."),
    "command": strings("What to run; the image's entry point when absent."),
    "env": keyed(ENV_VAR, "Environment variables.", "name"),
    "envFrom": many(_ENV_FROM, "ConfigMaps and Secrets whose keys become variables."),
    "image": string("The image, best by digest."),
    "imagePullPolicy": string("Always, Never or IfNotPresent."),
    "lifecycle": LIFECYCLE,
    "livenessProbe": one(PROBE, "Fails: the container is restarted."),
    "name!": string("Unique among the pod's containers: a DNS label."),
    "ports": keyed(PORT, "Ports that it listens on.", "containerPort", "protocol"),
    "readinessProbe": one(PROBE, "Fails: the pod gets no requests."),
    "resizePolicy": many(
        record(
            "core.v1.ContainerResizePolicy",
            "What a change of a resource takes.",
            {"resourceName!": string("The resource."), "restartPolicy!": string("NotRequired or RestartContainer.")},
        ),
        "What changes of resources take.",
    ),
    "resources": one(RESOURCES, "What it needs and may use.", default={}),
    "restartPolicy": string("Overrides the pod's; Always on an init container makes it a sidecar."),
    "restartPolicyRules": many(_RESTART_RULE, "Exceptions from restartPolicy."),
    "securityContext": SECURITY_CONTEXT,
    "startupProbe": one(PROBE, "Until it succeeds the other probes wait."),
    "stdin": boolean("Keep its standard input open."),
    "stdinOnce": boolean("Close standard input after the first attach."),
    "terminationMessagePath": string("File whose text explains an exit.", default="/dev/termination-log"),
    "terminationMessagePolicy": string("File, or FallbackToLogsOnError.", default="File"),
    "tty": boolean("Give it a terminal."),
    "volumeDevices": keyed(
        record(
            "core.v1.VolumeDevice",
            "A block volume as a device.",
            {"devicePath!": string("Path of the device."), "name!": string("The volume.")},
        ),
        "Block volumes.",
        "devicePath",
    ),
    "volumeMounts": keyed(_VOLUME_MOUNT, "Volumes it sees.", "mountPath"),
    "workingDir": string("Directory it starts in; the image's when absent."),
}

CONTAINER = record("core.v1.Container", "A process of the pod, and what it may see and use.", _FIELDS)

EPHEMERAL_CONTAINER = record(
    "core.v1.EphemeralContainer",
    "A container added to a running pod to look at it.",
    {**_FIELDS, "targetContainerName": string("The container whose processes it sees.")},
)
