/**
 * The pages of this repository: their links lead somewhere, and that of the examples has every program.
 */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, globSync, readFileSync } from "node:fs"
import { dirname, join, normalize, relative } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../../", import.meta.url))
const pages = globSync(["*.md", "docs/*.md", "packages/*/README.md"], { cwd: root })
const read = (path: string) => readFileSync(join(root, path), "utf8")

/** A page without what stands in its fences. */
const prose = (path: string) => read(path).replaceAll(/^ *```.*?^ *```$/gms, "")

/** The anchors of its headings, as they are made of their text. */
const anchors = (path: string): ReadonlyArray<string> =>
  Array.from(prose(path).matchAll(/^#+ (.+)$/gm), ([, heading = ""]) =>
    heading
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-"))

describe("the pages", () => {
  it("have no link that leads nowhere", () => {
    const links = pages.flatMap((page) =>
      Array.from(prose(page).matchAll(/\]\(([^)\s]+)\)/g), ([, link = ""]) => ({ page, link }))
    ).filter(({ link }) => !/^https?:/.test(link))
    assert.isAbove(links.length, 60)
    const dead = links.filter(({ link, page }) => {
      const [path = "", anchor] = link.split("#")
      const target = path === "" ? page : normalize(join(dirname(page), path))
      return !existsSync(join(root, target)) || (anchor !== undefined && !anchors(target).includes(anchor))
    })
    assert.deepStrictEqual(dead, [])
  })

  it("have every example, with its test and what it prints", () => {
    const page = "packages/examples/README.md"
    const programs = globSync("packages/examples/src/*/main.ts", { cwd: root })
      .map((main) => relative(join(root, "packages/examples/src"), dirname(join(root, main))))
    const rows = Array.from(
      read(page).matchAll(/^\| \[`([^`]+)`\]\(#[^)]+\) \| .+ \| \[`[^`]+`\]\((test\/[^)]+)\) \|$/gm),
      ([, name = "", test = ""]) => ({ name, test })
    )
    assert.deepStrictEqual(rows.map(({ name }) => name).toSorted(), programs.toSorted())
    for (const { name, test } of rows) {
      // That of the backup service is started by the module that starts all of them.
      const started = read(join("packages/examples", test)) + read("packages/examples/test/ServiceProcess.ts")
      assert.include(started, `../src/${name}/main.ts`, test)
      assert.match(
        read(page),
        new RegExp(`^## ${name}\\n(?:(?!^## )[^])*^\\$ .*pnpm@12 example ${name} -- `, "m"),
        name
      )
    }
  })
})
