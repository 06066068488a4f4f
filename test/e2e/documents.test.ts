// Every command against one real daemon: through pipes with --json, held to its document, and at a
// real terminal, where it has to end well and leave no escape behind that it was not asked for.

import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { COMMANDS } from "../../src/cli/commands.ts";
import { DOCUMENTS, PRINTS, type Shape } from "../../src/cli/documents.ts";
import type { CommandName } from "../../src/cli/surface.ts";
import { withDaemon } from "../support/daemon.ts";
import { piped, Screen } from "../support/screen.ts";

setDefaultTimeout(120_000);

/** What is typed of each command, in an order in which all of it can be done. */
const LINES: readonly (readonly [name: CommandName, line: string, code?: number])[] = [
  ["version", "version"],
  ["runtime add", "runtime add ./steady --name a"],
  ["runtime add", "runtime add ./steady --name b --copy"],
  ["runtime start", "runtime start a"],
  ["start", "start a b"],
  ["wait", "wait a --for running"],
  ["link add", "link add --from a --type a::T --to b"],
  ["link list", "link list"],
  ["ps", "ps"],
  ["runtime list", "runtime list"],
  ["status", "status a b"],
  ["why", "why a"],
  ["top", "top --every 50ms"],
  ["logs", "logs a"],
  ["events", "events -n 5"],
  ["export", "export"],
  ["doctor", "doctor"],
  ["completion", "completion words -- stop ''"],
  ["token new", "token new ./token"],
  ["plan", "plan ./bench.toml"],
  ["up", "up ./bench.toml --no-wait"],
  ["down", "down ./bench.toml -y"],
  ["restart", "restart b"],
  ["link remove", "link remove --from a --type a::T --to b"],
  ["stop", "stop b"],
  ["runtime stop", "runtime stop a"],
  ["runtime remove", "runtime remove a"],
  ["clear", "clear -y"],
];

/** Follows without an end: tested where its stream is. */
const ELSEWHERE: readonly CommandName[] = ["runtime stdout"];

/** What is wrong with a value, or undefined. */
function fault(form: string, value: unknown, at: string): string | undefined {
  if (form.endsWith("|null"))
    return value === null ? undefined : fault(form.slice(0, -5), value, at);
  const list = /^\[(.+)\]$/.exec(form)?.[1];
  if (list !== undefined) {
    if (!Array.isArray(value)) return `${at} is no list`;
    return value
      .map((item, i) => fault(list, item, `${at}[${i}]`))
      .find((found) => found !== undefined);
  }
  switch (form) {
    case "any":
      return undefined;
    case "text":
      return typeof value === "string" ? undefined : `${at} is no text`;
    case "number":
      return typeof value === "number" ? undefined : `${at} is no number`;
    case "flag":
      return typeof value === "boolean" ? undefined : `${at} is no flag`;
    case "time":
      return typeof value === "string" && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value)
        ? undefined
        : `${at} is no time`;
    default:
      return shapeFault(DOCUMENTS[form] as Shape, value, `${at}:${form}`);
  }
}

function shapeFault(shape: Shape, value: unknown, at: string): string | undefined {
  if (typeof value !== "object" || value === null) return `${at} is no document`;
  const known = Object.keys(shape).map((key) => key.replace("?", ""));
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined) return `${at} has a key that no page tells of, ${unknown}`;
  for (const [key, form] of Object.entries(shape)) {
    const name = key.replace("?", "");
    const inner = (value as Record<string, unknown>)[name];
    if (inner === undefined && key.endsWith("?")) continue;
    const found = fault(form, inner, `${at}.${name}`);
    if (found !== undefined) return found;
  }
  return undefined;
}

test("every command is tried", () => {
  const tried = new Set([...LINES.map(([name]) => name), ...ELSEWHERE]);
  expect(COMMANDS.map(({ name }) => name).filter((name) => !tried.has(name))).toEqual([]);
});

test.each([
  "through pipes, with --json, prints the documents that docs/cli.md shows",
  "at a terminal ends well",
])("Every command %s", async (manner) => {
  await withDaemon(async (daemon) => {
    const program = join(daemon.folder, "steady");
    writeFileSync(program, "#!/bin/sh\necho hello\nexec sleep 1000\n");
    chmodSync(program, 0o755);
    writeFileSync(join(daemon.folder, "bench.toml"), "[instances.m]\npath = 'steady'\n");
    const env = { VEECLE_ORCHESTRATOR_SOCKET: daemon.address };
    for (const [name, line] of LINES) {
      const words = line.replaceAll("''", "").split(" ");
      if (manner.startsWith("at")) {
        await using screen = new Screen(words, { env, folder: daemon.folder });
        if (name === "top") {
          await screen.shows(/NAME/);
          screen.type("q");
        }
        expect([line, await screen.ended(), screen.raw]).toEqual([
          line,
          0,
          expect.not.stringContaining("defect"),
        ]);
        continue;
      }
      const { code, out, err } = await piped(["--json", ...words], env, daemon.folder);
      expect([line, code, err]).toEqual([line, 0, ""]);
      const document = PRINTS[name];
      for (const text of out.trimEnd().split("\n")) {
        const value: unknown = JSON.parse(text);
        const found =
          typeof document === "string"
            ? fault(document, value, name)
            : shapeFault(document, value, name);
        expect(found).toBe(undefined);
      }
    }
    const failed = await piped(["start", "nobody", "--json"], env);
    expect(failed.code).toBe(4);
    expect(shapeFault({ error: "ERROR" }, JSON.parse(failed.err), "error")).toBe(undefined);
  });
});
