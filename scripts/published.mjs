import { globSync, readFileSync } from "node:fs"
import { dirname } from "node:path"

/** The packages that go to the registry: `{ path, manifest }`. */
export const published = globSync("packages/*/package.json")
  .toSorted()
  .map((file) => ({ path: dirname(file), manifest: JSON.parse(readFileSync(file, "utf8")) }))
  .filter(({ manifest }) => manifest.private !== true)
