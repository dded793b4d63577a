// Validates custom resources (JSON list on stdin) against the schemas of their operators' own definitions, as the
// @kubernetes-models packages publish them: node --input-type=module --eval "$(cat this)" in the folder of node_modules.
import { readFileSync } from "node:fs";

const packages = { "keda.sh": "@kubernetes-models/keda", "monitoring.coreos.com": "@kubernetes-models/prometheus-operator" };
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  const [group, version] = resource.apiVersion.split("/");
  const { [resource.kind]: Model } = await import(`${packages[group]}/${group}/${version}/${resource.kind}`);
  new Model(resource).validate();
  console.log(`${resource.kind}/${resource.metadata.name} is valid`);
}
