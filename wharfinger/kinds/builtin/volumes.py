"""Volumes of a pod: what can be mounted, and from where."""

from __future__ import annotations

from wharfinger.kinds.builtin.fields import (
    boolean,
    int32,
    int64,
    many,
    one,
    quantities,
    quantity,
    record,
    string,
    string_map,
    strings,
)
from wharfinger.kinds.builtin.meta import LABEL_SELECTOR, LOCAL_OBJECT_REFERENCE, OBJECT_META
from wharfinger.kinds.kind import Schema

_FILE_MODE = 420
"""0644, as the decimal number that JSON has."""


def _fs_type(**more: str) -> Schema:
    return string("File system of the volume: ext4, xfs and so on.", **more)


def _read_only(**more: bool) -> Schema:
    return boolean("Mount it read-only.", **more)


def _secret_ref() -> Schema:
    return one(LOCAL_OBJECT_REFERENCE, "Secret with the credentials.")


def _default_mode() -> Schema:
    return int32("Mode of files that name none, as a number (0644 is 420).", default=_FILE_MODE, minimum=0, maximum=511)


def _default_user() -> Schema:
    return int64("User id that owns files that name none.")


def _mode() -> Schema:
    return int32("Mode of this file.", minimum=0, maximum=511)


def _user() -> Schema:
    return int64("User id that owns this file.")


FIELD_REF = record(
    "core.v1.ObjectFieldSelector",
    "A field of the pod itself.",
    {
        "apiVersion": string("Version in which the path is written.", default="v1"),
        "fieldPath!": string("Path of the field, such as metadata.name."),
    },
    atomic=True,
)

RESOURCE_FIELD_REF = record(
    "core.v1.ResourceFieldSelector",
    "A request or limit of a container.",
    {
        "containerName": string("The container; needed in volumes."),
        "divisor": quantity("What the value is divided by; 1 when absent.", default="0"),
        "resource!": string("Which one, such as limits.cpu."),
    },
    atomic=True,
)

_KEY_TO_PATH = record(
    "core.v1.KeyToPath",
    "One key, as a file.",
    {"key!": string("The key."), "mode": _mode(), "path!": string("Relative path of the file."), "user": _user()},
)

_ITEMS = many(_KEY_TO_PATH, "The keys that become files; all of them when absent.")
_OPTIONAL = boolean("It may be absent.")

_DOWNWARD_FILE = record(
    "core.v1.DownwardAPIVolumeFile",
    "A fact about the pod, as a file.",
    {
        "fieldRef": one(FIELD_REF, "A field of the pod."),
        "mode": _mode(),
        "path!": string("Relative path of the file."),
        "resourceFieldRef": one(RESOURCE_FIELD_REF, "A request or limit of a container."),
        "user": _user(),
    },
)

_CLAIM_TEMPLATE = record(
    "core.v1.PersistentVolumeClaimTemplate",
    "The claim to make for the pod.",
    {
        "metadata": one(OBJECT_META, "Labels and annotations of the claim."),
        "spec!": record(
            "core.v1.PersistentVolumeClaimSpec",
            "What storage is asked for.",
            {
                "accessModes": strings("How it is to be mounted, such as ReadWriteOnce."),
                "dataSource": record(
                    "core.v1.TypedLocalObjectReference",
                    "What the volume starts as a copy of.",
                    {"apiGroup": string("Its group."), "kind!": string("Its kind."), "name!": string("Its name.")},
                    atomic=True,
                ),
                "dataSourceRef": record(
                    "core.v1.TypedObjectReference",
                    "What the volume is filled from.",
                    {
                        "apiGroup": string("Its group."),
                        "kind!": string("Its kind."),
                        "name!": string("Its name."),
                        "namespace": string("Its namespace."),
                    },
                ),
                "resources": record(
                    "core.v1.VolumeResourceRequirements",
                    "How much.",
                    {"limits": quantities("At most."), "requests": quantities("At least.")},
                ),
                "selector": one(LABEL_SELECTOR, "Which volumes will do."),
                "storageClassName": string("The storage class."),
                "volumeAttributesClassName": string("The class of changeable attributes."),
                "volumeMode": string("Filesystem or Block."),
                "volumeName": string("The volume that it is bound to."),
            },
        ),
    },
)

_PROJECTION = record(
    "core.v1.VolumeProjection",
    "One source among several; exactly one of the fields.",
    {
        "clusterTrustBundle": record(
            "core.v1.ClusterTrustBundleProjection",
            "Trust anchors, as a PEM file.",
            {
                "labelSelector": one(LABEL_SELECTOR, "Selects bundles of a signer."),
                "name": string("One bundle by name."),
                "optional": _OPTIONAL,
                "path!": string("Relative path of the file."),
                "signerName": string("All bundles of this signer."),
                "user": _user(),
            },
        ),
        "configMap": record(
            "core.v1.ConfigMapProjection",
            "Keys of a ConfigMap.",
            {"items": _ITEMS, "name": string("The ConfigMap."), "optional": _OPTIONAL},
        ),
        "downwardAPI": record(
            "core.v1.DownwardAPIProjection", "Facts about the pod.", {"items": many(_DOWNWARD_FILE, "The files.")}
        ),
        "podCertificate": record(
            "core.v1.PodCertificateProjection",
            "A private key and its certificate, renewed.",
            {
                "certificateChainPath": string("File for the certificates."),
                "credentialBundlePath": string("File for key and certificates together."),
                "keyPath": string("File for the key."),
                "keyType!": string("Sort of key, such as ED25519 or ECDSAP256."),
                "maxExpirationSeconds": int32("Longest validity wanted."),
                "signerName!": string("Who is to sign."),
                "user": _user(),
                "userAnnotations": string_map("What to tell the signer."),
            },
        ),
        "secret": record(
            "core.v1.SecretProjection",
            "Keys of a Secret.",
            {"items": _ITEMS, "name": string("The Secret."), "optional": _OPTIONAL},
        ),
        "serviceAccountToken": record(
            "core.v1.ServiceAccountTokenProjection",
            "A token of the pod's service account.",
            {
                "audience": string("For whom it is meant."),
                "expirationSeconds": int64("How long it is valid.", default=3600),
                "path!": string("Relative path of the file."),
                "user": _user(),
            },
        ),
    },
)

_PLAIN_SOURCES: dict[str, Schema] = {
    "configMap": record(
        "core.v1.ConfigMapVolumeSource",
        "A ConfigMap, each key a file.",
        {
            "defaultMode": _default_mode(),
            "defaultUser": _default_user(),
            "items": _ITEMS,
            "name": string("The ConfigMap."),
            "optional": _OPTIONAL,
        },
    ),
    "csi": record(
        "core.v1.CSIVolumeSource",
        "A volume that a CSI driver makes for the pod.",
        {
            "driver!": string("The driver."),
            "fsType": _fs_type(),
            "nodePublishSecretRef": _secret_ref(),
            "readOnly": _read_only(),
            "volumeAttributes": string_map("What the driver wants to know."),
        },
    ),
    "downwardAPI": record(
        "core.v1.DownwardAPIVolumeSource",
        "Facts about the pod, as files.",
        {"defaultMode": _default_mode(), "defaultUser": _default_user(), "items": many(_DOWNWARD_FILE, "The files.")},
    ),
    "emptyDir": record(
        "core.v1.EmptyDirVolumeSource",
        "An empty directory that goes with the pod.",
        {
            "medium": string("Where it lies: empty for the node's disk, Memory for RAM."),
            "mode": int32("Mode of the directory."),
            "sizeLimit": quantity("How large it may become."),
        },
    ),
    "ephemeral": record(
        "core.v1.EphemeralVolumeSource",
        "A claimed volume that goes with the pod.",
        {"volumeClaimTemplate": one(_CLAIM_TEMPLATE, "The claim to make.")},
    ),
    "hostPath": record(
        "core.v1.HostPathVolumeSource",
        "A path of the node. Whoever may use it owns the node.",
        {"path!": string("The path."), "type": string("What must be there: Directory, File, and so on.", default="")},
    ),
    "image": record(
        "core.v1.ImageVolumeSource",
        "An OCI image or artifact, read-only.",
        {
            "pullPolicy": string("Always, Never or IfNotPresent."),
            "reference": string("The image or artifact, best by digest."),
        },
    ),
    "nfs": record(
        "core.v1.NFSVolumeSource",
        "An NFS export.",
        {"path!": string("The exported path."), "readOnly": _read_only(), "server!": string("The server.")},
    ),
    "persistentVolumeClaim": record(
        "core.v1.PersistentVolumeClaimVolumeSource",
        "A claimed volume.",
        {"claimName!": string("The claim, in the pod's namespace."), "readOnly": _read_only()},
    ),
    "projected": record(
        "core.v1.ProjectedVolumeSource",
        "Several sources in one directory.",
        {
            "defaultMode": _default_mode(),
            "defaultUser": _default_user(),
            "sources": many(_PROJECTION, "The sources."),
        },
    ),
    "secret": record(
        "core.v1.SecretVolumeSource",
        "A Secret, each key a file.",
        {
            "defaultMode": _default_mode(),
            "defaultUser": _default_user(),
            "items": _ITEMS,
            "optional": _OPTIONAL,
            "secretName": string("The Secret."),
        },
    ),
}

_NETWORK_SOURCES: dict[str, Schema] = {
    "azureFile": record(
        "core.v1.AzureFileVolumeSource",
        "An Azure file share.",
        {
            "readOnly": _read_only(),
            "secretName!": string("Secret with account name and key."),
            "shareName!": string("The share."),
        },
    ),
    "cephfs": record(
        "core.v1.CephFSVolumeSource",
        "A CephFS mount.",
        {
            "monitors!": strings("Ceph monitors."),
            "path": string("Root of the mount."),
            "readOnly": _read_only(),
            "secretFile": string("Path of the key ring."),
            "secretRef": _secret_ref(),
            "user": string("Ceph user."),
        },
    ),
    "fc": record(
        "core.v1.FCVolumeSource",
        "A Fibre Channel disk.",
        {
            "fsType": _fs_type(),
            "lun": int32("Logical unit."),
            "readOnly": _read_only(),
            "targetWWNs": strings("World wide names of the target."),
            "wwids": strings("World wide identifiers of the volume."),
        },
    ),
    "flexVolume": record(
        "core.v1.FlexVolumeSource",
        "A volume of a FlexVolume driver.",
        {
            "driver!": string("The driver."),
            "fsType": _fs_type(),
            "options": string_map("Options of the driver."),
            "readOnly": _read_only(),
            "secretRef": _secret_ref(),
        },
    ),
    "flocker": record(
        "core.v1.FlockerVolumeSource",
        "A Flocker data set.",
        {"datasetName": string("Its name."), "datasetUUID": string("Its UUID.")},
    ),
    "gitRepo": record(
        "core.v1.GitRepoVolumeSource",
        "A clone of a git repository.",
        {
            "directory": string("Directory to clone into."),
            "repository!": string("URL of the repository."),
            "revision": string("Commit to check out."),
        },
    ),
    "glusterfs": record(
        "core.v1.GlusterfsVolumeSource",
        "A GlusterFS mount.",
        {"endpoints!": string("Endpoints object."), "path!": string("The volume."), "readOnly": _read_only()},
    ),
    "iscsi": record(
        "core.v1.ISCSIVolumeSource",
        "An iSCSI disk.",
        {
            "chapAuthDiscovery": boolean("Authenticate discovery by CHAP."),
            "chapAuthSession": boolean("Authenticate the session by CHAP."),
            "fsType": _fs_type(),
            "initiatorName": string("Name of the initiator."),
            "iqn!": string("Name of the target."),
            "iscsiInterface": string("Transport.", default="default"),
            "lun!": int32("Logical unit."),
            "portals": strings("More portals."),
            "readOnly": _read_only(),
            "secretRef": _secret_ref(),
            "targetPortal!": string("Portal, host:port."),
        },
    ),
    "quobyte": record(
        "core.v1.QuobyteVolumeSource",
        "A Quobyte mount.",
        {
            "group": string("Group to map access to."),
            "readOnly": _read_only(),
            "registry!": string("Registries, host:port, parted by commas."),
            "tenant": string("Tenant of the volume."),
            "user": string("User to map access to."),
            "volume!": string("The volume."),
        },
    ),
    "rbd": record(
        "core.v1.RBDVolumeSource",
        "A Ceph block device.",
        {
            "fsType": _fs_type(),
            "image!": string("The image."),
            "keyring": string("Path of the key ring.", default="/etc/ceph/keyring"),
            "monitors!": strings("Ceph monitors."),
            "pool": string("The pool.", default="rbd"),
            "readOnly": _read_only(),
            "secretRef": _secret_ref(),
            "user": string("Ceph user.", default="admin"),
        },
    ),
}

_CLOUD_SOURCES: dict[str, Schema] = {
    "awsElasticBlockStore": record(
        "core.v1.AWSElasticBlockStoreVolumeSource",
        "An AWS disk.",
        {
            "fsType": _fs_type(),
            "partition": int32("Partition to mount."),
            "readOnly": _read_only(),
            "volumeID!": string("Id of the disk."),
        },
    ),
    "azureDisk": record(
        "core.v1.AzureDiskVolumeSource",
        "An Azure disk.",
        {
            "cachingMode": string("None, ReadOnly or ReadWrite.", default="ReadWrite"),
            "diskName!": string("Name of the disk."),
            "diskURI!": string("URI of the disk."),
            "fsType": _fs_type(default="ext4"),
            "kind": string("Shared, Dedicated or Managed.", default="Shared"),
            "readOnly": _read_only(default=False),
        },
    ),
    "cinder": record(
        "core.v1.CinderVolumeSource",
        "An OpenStack disk.",
        {
            "fsType": _fs_type(),
            "readOnly": _read_only(),
            "secretRef": _secret_ref(),
            "volumeID!": string("Id of the volume."),
        },
    ),
    "gcePersistentDisk": record(
        "core.v1.GCEPersistentDiskVolumeSource",
        "A Google disk.",
        {
            "fsType": _fs_type(),
            "partition": int32("Partition to mount."),
            "pdName!": string("Name of the disk."),
            "readOnly": _read_only(),
        },
    ),
    "photonPersistentDisk": record(
        "core.v1.PhotonPersistentDiskVolumeSource",
        "A Photon disk.",
        {"fsType": _fs_type(), "pdID!": string("Id of the disk.")},
    ),
    "portworxVolume": record(
        "core.v1.PortworxVolumeSource",
        "A Portworx volume.",
        {"fsType": _fs_type(), "readOnly": _read_only(), "volumeID!": string("Id of the volume.")},
    ),
    "scaleIO": record(
        "core.v1.ScaleIOVolumeSource",
        "A ScaleIO volume.",
        {
            "fsType": _fs_type(default="xfs"),
            "gateway!": string("Address of the gateway."),
            "protectionDomain": string("Protection domain."),
            "readOnly": _read_only(),
            "secretRef!": _secret_ref(),
            "sslEnabled": boolean("Speak TLS to the gateway."),
            "storageMode": string("ThickProvisioned or ThinProvisioned.", default="ThinProvisioned"),
            "storagePool": string("Storage pool."),
            "system!": string("Name of the system."),
            "volumeName": string("Name of the volume."),
        },
    ),
    "storageos": record(
        "core.v1.StorageOSVolumeSource",
        "A StorageOS volume.",
        {
            "fsType": _fs_type(),
            "readOnly": _read_only(),
            "secretRef": _secret_ref(),
            "volumeName": string("Name of the volume."),
            "volumeNamespace": string("Namespace of the volume."),
        },
    ),
    "vsphereVolume": record(
        "core.v1.VsphereVirtualDiskVolumeSource",
        "A vSphere disk.",
        {
            "fsType": _fs_type(),
            "storagePolicyID": string("Id of the storage policy."),
            "storagePolicyName": string("Name of the storage policy."),
            "volumePath!": string("Path of the disk."),
        },
    ),
}

SOURCES = {**_PLAIN_SOURCES, **_NETWORK_SOURCES, **_CLOUD_SOURCES}
"""The fields of a volume of which exactly one is to be set."""

VOLUME = record(
    "core.v1.Volume",
    "Something that containers of the pod can mount.",
    {"name!": string("Unique among the pod's volumes: a DNS label."), **SOURCES},
)

VOLUME_STATUS = record(
    "core.v1.VolumeMountStatus",
    "How a mount turned out.",
    {
        "mountPath!": string("Where it is."),
        "name!": string("The volume."),
        "readOnly": boolean("It is read-only."),
        "recursiveReadOnly": string("Whether mounts below it are read-only too."),
        "volumeStatus": record(
            "core.v1.VolumeStatus",
            "What the volume turned out to be.",
            {
                "image": record(
                    "core.v1.ImageVolumeStatus", "The image that was mounted.", {"imageRef!": string("By digest.")}
                )
            },
        ),
    },
)

VOLUME_HEALTH = record(
    "core.v1.PodVolumeHealth",
    "What is known of a volume's health.",
    {
        "healthConditions": {
            "type": "array",
            "description": "What is wrong.",
            "items": record(
                "core.v1.VolumeHealthCondition",
                "One thing that is wrong.",
                {
                    "message": string("In words."),
                    "reason!": string("In one word."),
                    "status!": string("How bad."),
                },
            ),
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["status", "reason"],
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "status",
        },
        "lastTransitionTime": string("When it last changed.", format="date-time"),
        "name!": string("The volume."),
    },
)
