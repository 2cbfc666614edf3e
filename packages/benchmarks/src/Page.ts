/** The results as the table that is printed, and as the one in `README.md`. */
import type { Result } from "./Bench.ts"

const head = ["row", "work", "ours", "against", "theirs", "ratio", "budget"]

const cells = ({ budget, ours, ratio, reference, row, theirs, unit, work }: Result): ReadonlyArray<string> => [
  String(row),
  work,
  `${ours} ${unit}`,
  reference,
  `${theirs} ${unit}`,
  String(ratio),
  budget === null ? "" : `<= ${budget}${ratio <= budget ? "" : " MISSED"}`
]

const numbers = new Set(["ours", "theirs", "ratio"])

export const table = (results: ReadonlyArray<Result>): string => {
  const rows = results.map(cells)
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)))
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, column) =>
      numbers.has(head[column] ?? "") ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)
    ).join("  ").trimEnd()
  return [line(head), ...rows.map(line)].join("\n")
}

const markdown = (results: ReadonlyArray<Result>): string => {
  const line = (row: ReadonlyArray<string>) => `| ${row.join(" | ")} |`
  const rule = head.map((title) => numbers.has(title) ? "---:" : "---")
  return [line(head), line(rule), ...results.map((result) => line(cells(result)))].join("\n")
}

const begin = "<!-- figures: written by `pnpm bench --write` -->"
const end = "<!-- /figures -->"

/** The page with these results in the place of the ones that it has. */
export const withFigures = (page: string, results: ReadonlyArray<Result>): string => {
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  if (from < 0 || to < from) throw new Error(`the page has no place for figures between ${begin} and ${end}`)
  return `${page.slice(0, from + begin.length)}\n\n${markdown(results)}\n\n${page.slice(to)}`
}
