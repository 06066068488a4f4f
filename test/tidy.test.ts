// The rules of the house, as code. Each names what breaks it.

import { describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

const ROOT = join(import.meta.dir, "..");
const MAX_LINES = 490;

/** Who may touch the system: the doors, and what runs as a program of its own or within another. */
const DOORS = [
  "host.ts",
  "socket.ts",
  "datagram.ts",
  "store.ts",
  "store/database.ts",
  "store/checkpoint.ts",
  "store/syncer.ts",
  "store/binaries.ts",
  "files.ts",
  "files/lines.ts",
  "files/lock.ts",
  "files/stdout.ts",
  "files/secret.ts",
  "host/own.ts",
  "host/processes.ts",
  "host/memory.ts",
  "host/guard.ts",
  "host/cgroup.ts",
  "output/history.ts",
  "host/notify.ts",
  "host/credentials.ts",
  "host/code.ts",
  "host/libc.ts",
  "host/pipe.ts",
];
const ENTRY_POINTS = [
  "main.ts",
  "daemon.ts",
  "cli.ts",
  "client.ts",
  "client/stranger.ts",
  "runtime.ts",
];

/** Modules without side effects, for everybody. */
const PURE_MODULES = ["node:buffer", "node:util", "node:path"];
/** Take so long to load that every start and every command would feel it. */
const SLOW_MODULES = [
  "node:net",
  "node:crypto",
  "node:http",
  "node:stream",
  "node:tls",
  "node:tty",
];

/** What only doors and entry points may do: processes, sockets, files, clocks, chance. */
const SYSTEM = new RegExp(
  [
    String.raw`\bBun\.(?:spawn|spawnSync|listen|connect|serve|udpSocket|file|write|which|sleep|env|nanoseconds|stdin|stdout|stderr|\$)\b`,
    String.raw`\bprocess\.(?:kill|exit|abort|on|once|off|env|argv|cwd|chdir|umask|stdin|stdout|stderr|nextTick|hrtime|memoryUsage)\b`,
    String.raw`\bDate\.now\b|\bnew Date\(\)|\bperformance\.\w+`,
    String.raw`\b(?:setTimeout|setInterval|setImmediate|fetch|WebSocket|Worker)\s*\(`,
    String.raw`\bMath\.random\b|\bcrypto\.(?:randomUUID|getRandomValues)\b`,
  ].join("|"),
  "g",
);

interface File {
  /** Relative to the root of the repository, with `/`. */
  readonly path: string;
  readonly text: string;
}

function filesIn(folder: string): File[] {
  const absolute = join(ROOT, folder);
  if (!existsSync(absolute)) return [];
  return readdirSync(absolute, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !/(^|\/)(node_modules|target)\//.test(name))
    .map((name) => ({
      path: `${folder}/${name}`,
      text: readFileSync(join(absolute, name), "utf8"),
    }))
    .toSorted((a, b) => (a.path < b.path ? -1 : 1));
}

const sources = filesIn("src");
const tests = filesIn("test").filter(({ path }) => path !== "test/tidy.test.ts");

/** The modules that a file names, also for types alone. */
function importsOf({ text }: File): { names: string; from: string }[] {
  const code = text.replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, "");
  const statements =
    /\b(?:import|export)\b([^;"']*?)\bfrom\s*"([^"]+)"|\bimport\s*\(?\s*"([^"]+)"/g;
  return [...code.matchAll(statements)].map(([, names, from, bare]) => ({
    names: names ?? "",
    from: from ?? (bare as string),
  }));
}

/** The files of ours that a file imports, as paths like those of `File`. */
function ownImportsOf(file: File): string[] {
  return importsOf(file)
    .filter(({ from }) => from.startsWith("."))
    .map(({ from }) => relative(ROOT, join(ROOT, dirname(file.path), from)));
}

/** The floor of each file of `src/`, from the table in the architecture. */
function floors(): Map<string, number> {
  const page = readFileSync(join(ROOT, "docs/architecture.md"), "utf8");
  const table = new Map<string, number>();
  for (const [, floor, files] of page.matchAll(/^\|\s*([0-9]+)\s*\|([^|]*)\|/gm)) {
    for (const [, name] of (files as string).matchAll(/`([^`]+)`/g)) {
      table.set(`src/${name}`, Number(floor));
    }
  }
  return table;
}

function floorOf(path: string, table: Map<string, number>): number | undefined {
  const folder = /^src\/[^/]+\//.exec(path)?.[0];
  return table.get(path) ?? (folder === undefined ? undefined : table.get(folder));
}

const isSystemFile = (path: string): boolean =>
  path.startsWith("src/cli/") || [...DOORS, ...ENTRY_POINTS].some((name) => path === `src/${name}`);

describe("floors", () => {
  const table = floors();

  test("every file stands on one, in docs/architecture.md", () => {
    expect(sources.length).toBeGreaterThan(20);
    const homeless = sources.filter(({ path }) => floorOf(path, table) === undefined);
    expect(homeless.map(({ path }) => path)).toEqual([]);
  });

  test("docs/architecture.md names no file that is gone", () => {
    const gone = [...table.keys()].filter((path) => !existsSync(join(ROOT, path)));
    expect(gone).toEqual([]);
  });

  test("no file imports from a floor above its own", () => {
    const upward = sources.flatMap((file) =>
      ownImportsOf(file)
        .filter((path) => path.startsWith("src/"))
        .filter((path) => (floorOf(path, table) ?? 0) > (floorOf(file.path, table) ?? 99))
        .map((path) => `${file.path} imports ${path}`),
    );
    expect(upward).toEqual([]);
  });

  test("no import leads back to where it began", () => {
    const imports = new Map(sources.map((file) => [file.path, ownImportsOf(file)]));
    const reaches = (from: string, to: string, seen: Set<string>): boolean =>
      (imports.get(from) ?? []).some((next) => {
        if (next === to) return true;
        if (seen.has(next)) return false;
        seen.add(next);
        return reaches(next, to, seen);
      });
    const circles = sources.filter(({ path }) => reaches(path, path, new Set()));
    expect(circles.map(({ path }) => path)).toEqual([]);
  });
});

describe("doors", () => {
  test("only doors and entry points touch the system", () => {
    const transpiler = new Bun.Transpiler({ loader: "ts", target: "bun" });
    const touching = sources
      .filter(({ path }) => !isSystemFile(path))
      .flatMap(({ path, text }) => {
        const code = transpiler.transformSync(text); // no comments, no types
        const uses = new Set([...code.matchAll(SYSTEM)].map(([use]) => use.replace(/\s*\($/, "")));
        return [...uses].map((use) => `${path} uses ${use}`);
      });
    expect(touching).toEqual([]);
  });

  test("only doors and entry points import modules that do", () => {
    const touching = sources
      .filter(({ path }) => !isSystemFile(path))
      .flatMap((file) =>
        importsOf(file)
          .filter(({ from }) => !from.startsWith("."))
          .filter(({ from }) => !PURE_MODULES.includes(from))
          .map(({ from }) => `${file.path} imports ${from}`),
      );
    expect(touching).toEqual([]);
  });

  test("no file begins by loading what takes long", () => {
    const slow = sources.flatMap((file) =>
      [...file.text.matchAll(/^import\b[^;]*?from "([^"]+)";/gm)]
        .filter(([, from]) => SLOW_MODULES.includes(from as string))
        .map(([, from]) => `${file.path} imports ${from}`),
    );
    expect(slow).toEqual([]);
  });
});

describe("dependencies", () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Record<
    string,
    Record<string, string> | undefined
  >;

  test("none at run time", () => {
    for (const kind of ["dependencies", "peerDependencies", "optionalDependencies"]) {
      expect(Object.keys(manifest[kind] ?? {})).toEqual([]);
    }
  });

  test("two for development, with exact versions", () => {
    const versions = Object.entries(manifest["devDependencies"] ?? {});
    expect(versions.map(([name]) => name).toSorted()).toEqual(["@types/node", "bun-types"]);
    for (const [, version] of versions) expect(version).toMatch(/^[0-9]+\.[0-9]+\.[0-9]+$/);
  });

  test("the source imports nothing but itself, Bun and Node's modules", () => {
    const foreign = sources.flatMap((file) =>
      importsOf(file)
        .filter(({ from }) => !/^(\.|node:|bun:|bun$)/.test(from))
        .map(({ from }) => `${file.path} imports ${from}`),
    );
    expect(foreign).toEqual([]);
  });
});

describe("files", () => {
  test(`of src/ have at most ${MAX_LINES} lines`, () => {
    const long = sources
      .map(({ path, text }) => ({ path, lines: text.trimEnd().split("\n").length }))
      .filter(({ lines }) => lines > MAX_LINES);
    expect(long.map(({ path, lines }) => `${path}: ${lines}`)).toEqual([]);
  });

  test("of src/ open with a comment that says what they own", () => {
    const silent = sources.filter(({ text }) => !/^(#!.*\n)?(\/\/ |\/\*\*?\s)\S/.test(text));
    expect(silent.map(({ path }) => path)).toEqual([]);
  });

  test("are named after what they hold, not after their kind", () => {
    const all = [...sources, ...tests, ...filesIn("bench"), ...filesIn("examples")];
    const vague = all.filter(({ path }) => /(^|\/)(index|utils?|types|helpers?)\.ts$/.test(path));
    expect(vague.map(({ path }) => path)).toEqual([]);
  });

  test("of test/ mirror those of src/", () => {
    const mirrors = tests
      .map(({ path }) => /^test\/((?:(?:cli|manifest)\/)?[^/]+)\.test\.ts$/.exec(path)?.[1])
      .filter((name) => name !== undefined);
    const orphans = mirrors.filter((name) => !existsSync(join(ROOT, "src", `${name}.ts`)));
    expect(orphans).toEqual([]);
  });
});

describe("docs/protocol.md", () => {
  const path = join(ROOT, "docs/protocol.md");
  const page = existsSync(path) ? readFileSync(path, "utf8") : undefined;
  const numbers = [...(page ?? "").matchAll(/^\*\*(P-[0-9]+)\*\*/gm)].map(([, id]) => id as string);

  test("is there", () => {
    if (page === undefined) throw new Error("docs/protocol.md is missing");
    expect(numbers.length).toBeGreaterThan(0);
  });

  test("numbers its rules without gaps, in order", () => {
    if (page === undefined) throw new Error("docs/protocol.md is missing");
    expect(numbers).toEqual(numbers.map((_, i) => `P-${i + 1}`));
  });

  test("has no rule that no test names", () => {
    if (page === undefined) throw new Error("docs/protocol.md is missing");
    const named = new Set(tests.flatMap(({ text }) => text.match(/\bP-[0-9]+\b/g) ?? []));
    expect(numbers.filter((id) => !named.has(id))).toEqual([]);
  });

  test("has every rule that a test names", () => {
    if (page === undefined) throw new Error("docs/protocol.md is missing");
    const unknown = tests.flatMap(({ path: file, text }) =>
      [...new Set(text.match(/\bP-[0-9]+\b/g) ?? [])]
        .filter((id) => !numbers.includes(id))
        .map((id) => `${file} names ${id}`),
    );
    expect(unknown).toEqual([]);
  });
});
