// The page `docs/cli.md`, from the same table as parsing and help.
//
// As a program of its own it writes that page, and the one for man: `bun run manual`.

import { COMMANDS } from "./commands.ts";
import { DOCUMENTS, PRINTS, type Shape } from "./documents.ts";
import { EXIT_CODES_TABLE, helpPage } from "./help.ts";
import { manPage } from "./man.ts";
import { COMMON_OPTIONS } from "./surface.ts";

/** The page in Markdown. */
export function manual(): string {
  const everyday = COMMANDS.filter(({ name }) => !name.includes(" "));
  const others = COMMANDS.filter(({ name }) => name.includes(" "));
  return `${[
    "# Command line",
    "This page is generated from `src/cli/commands.ts` by `bun run manual`; a test says that it is fresh.\n" +
      "In a checkout a command is typed as `bun run cli ps`, with the executable as `veecle-orchestrator ps`.",
    "## What holds for every command",
    "Options stand before, between or after the other words; short ones may stand together (`-fn3`).\n" +
      "An instance is named by its name, its id, or a beginning or end of its id that no other has.\n" +
      "Answers go to standard output, everything else to standard error.\n" +
      "Colours appear on a terminal only; `NO_COLOR`, `TERM=dumb` and `--no-color` turn them off.\n" +
      "A reader that closes the pipe ends a command quietly, with exit code 0.",
    list(COMMON_OPTIONS.map(({ name, text }) => [name, text])),
    "### Exit codes",
    list(EXIT_CODES_TABLE),
    "### JSON",
    "With `--json` a command prints one document on one line, or for a stream one for each item.\n" +
      "Keys stay; new ones may come.\n" +
      "Times are ISO 8601 in UTC, durations are in milliseconds (`…_ms`).\n" +
      'Errors are documents on standard error: `{"error":{"code","message","causes","hint","exit"}}`.\n' +
      "`code` is one of P-14 in [the protocol](protocol.md), or `unmet`: nothing was refused, but what was asked for has not come true.\n" +
      "`causes` is a list of texts, `hint` is null or a text, `exit` is the exit code.",
    "## For every day",
    ...everyday.flatMap(section),
    "## Instances and links",
    ...others.flatMap(section),
    "## Documents",
    "What stands in capitals above, key by key.\n" +
      "A `time` is ISO 8601 in UTC, `[X]` a list, `X|null` perhaps nothing, a key with `?` may be missing, and `any` differs from one to the other.",
    ...Object.entries(DOCUMENTS).flatMap(([name, shape]) => [`### ${name}`, shapeTable(shape)]),
    "### What each command prints",
    table([
      ["command", "document"],
      ...COMMANDS.map(({ name }) => [`\`${name}\``, printed(PRINTS[name])] as const),
    ]),
  ].join("\n\n")}\n`;
}

function section({ name, json }: (typeof COMMANDS)[number]): string[] {
  const [page = ""] = helpPage(name).split("\n  --socket", 1);
  return [`### ${name}`, `\`\`\`text\n${page.trimEnd()}\n\`\`\``, `With \`--json\`: ${json}.`];
}

function shapeTable(shape: Shape): string {
  const rows = Object.entries(shape).map(([key, form]) => [`\`${key}\``, cell(form)] as const);
  return table([["key", "value"], ...rows]);
}

/** Columns as wide as their widest cell, which is how `bun fmt` wants them; the first row is the head. */
function table(rows: readonly (readonly [string, string])[]): string {
  const [left, right] = ([0, 1] as const).map((at) =>
    Math.max(...rows.map((row) => Bun.stringWidth(row[at]))),
  ) as [number, number];
  const padded = (text: string, width: number): string =>
    text + " ".repeat(width - Bun.stringWidth(text));
  const lines = rows.map(([a, b]) => `| ${padded(a, left)} | ${padded(b, right)} |`);
  return lines.toSpliced(1, 0, `| ${"-".repeat(left)} | ${"-".repeat(right)} |`).join("\n");
}

function printed(document: Shape | string): string {
  if (typeof document === "string") return cell(document);
  return Object.entries(document)
    .map(([key, form]) => `\`${key}\`: ${cell(form)}`)
    .join(", ");
}

function cell(form: string): string {
  return form.replaceAll("|", "\\|");
}

function list(rows: readonly (readonly [string, string])[]): string {
  return rows.map(([left, right]) => `- \`${left}\`: ${right}`).join("\n");
}

if (import.meta.main) {
  const docs = `${import.meta.dir}/../../docs`;
  await Bun.write(`${docs}/cli.md`, manual());
  await Bun.write(`${docs}/veecle-orchestrator.1`, manPage());
}
