#!/usr/bin/env python3
"""Builds every overlay and checks each object against the schema of its kind; unknown fields are errors.

    pip install kubernetes-validate==1.37.0 jsonschema==4.26.0
    python3 deploy/kubernetes/validate.py [--version 1.33] [--crds DIR]

Needs kubectl for `kubectl kustomize`, and no cluster. Kinds that Kubernetes does not have are checked against the
CustomResourceDefinitions in the files of DIR; without DIR their objects are named as not checked. Exits with 1 if an object is
wrong or an overlay cannot be built.
"""

import argparse
import copy
import subprocess
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

HERE = Path(__file__).parent
# Groups that are not Kubernetes' own.
CUSTOM = {"keda.sh", "inference.networking.k8s.io", "gateway.networking.k8s.io", "serving.kserve.io"}


def strict(schema):
    """A JSON schema of a definition's OpenAPI schema, in which fields that it does not name are errors."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    schema = {key: {name: strict(value) for name, value in child.items()} if key == "properties" else strict(child)
              for key, child in schema.items() if key not in ("default", "enum")} | (
        {"enum": schema["enum"]} if "enum" in schema else {})
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if "properties" in schema and schema.get("type") == "object" and not open_ended:
        schema["additionalProperties"] = False
    return schema


def definitions(folder):
    """The schemas of (apiVersion, kind)."""
    found = {}
    for path in sorted(folder.glob("*.yaml")) if folder else []:
        for crd in yaml.safe_load_all(path.read_text()):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
                # Every object has metadata, of which definitions say only that it is an object.
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", default="1.33", help="version of Kubernetes (1.33)")
    parser.add_argument("--crds", type=Path, metavar="DIR", help="folder of CustomResourceDefinitions")
    args = parser.parse_args()
    custom = definitions(args.crds)
    checked = wrong = skipped = 0
    for overlay in sorted(path.parent for path in HERE.glob("*/kustomization.yaml")):
        built = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True)
        if built.returncode:
            print(f"{overlay.name}: {built.stderr.strip()}")
            wrong += 1
            continue
        for item in yaml.safe_load_all(built.stdout):
            name, key = f"{overlay.name}: {item['kind']} {item['metadata']['name']}", (item["apiVersion"], item["kind"])
            try:
                if key in custom:
                    jsonschema.Draft202012Validator(custom[key]).validate(item)
                elif key[0].split("/")[0] in CUSTOM:
                    print(f"{name}: not checked, no definition of {key[0]}")
                    skipped += 1
                    continue
                else:
                    kubernetes_validate.validate(item, args.version, strict=True)
                checked += 1
            except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
                print(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
                wrong += 1
    print(f"{checked} objects checked, {skipped} not checked, {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
