// Manifests for tests: files that are only texts, and what loading them gives.

import { loadManifest } from "../../src/manifest.ts";
import { formatFault } from "../../src/manifest/fault.ts";
import type { Sources } from "../../src/manifest/section.ts";
import type { Manifest } from "../../src/manifest/wanted.ts";

export const FOLDER = "/work";

/** Files by their paths; a relative one is in `FOLDER`. */
export function sourcesOf(
  files: Readonly<Record<string, string>>,
  environment: Readonly<Record<string, string>> = {},
): Sources {
  const texts = new Map(
    Object.entries(files).map(([path, text]) => [
      path.startsWith("/") ? path : `${FOLDER}/${path}`,
      text,
    ]),
  );
  const read = (path: string): string => {
    const text = texts.get(path);
    if (text === undefined) throw Object.assign(new Error("x"), { code: "ENOENT", errno: -2 });
    return text;
  };
  return { read, environment };
}

type Files = Readonly<Record<string, string>>;

/** The manifest that begins with the first of these files; fails if it is refused. */
export function load(files: Files, environment: Readonly<Record<string, string>> = {}): Manifest {
  const loaded = loadManifest(firstOf(files), sourcesOf(files, environment));
  if (loaded.kind === "valid") return loaded.manifest;
  throw new Error(loaded.faults.map((fault) => formatFault(fault, FOLDER)).join("\n"));
}

/** The faults of such a manifest, as lines; fails if it has none. */
export function faultsOf(
  files: Files,
  environment: Readonly<Record<string, string>> = {},
): string[] {
  const loaded = loadManifest(firstOf(files), sourcesOf(files, environment));
  if (loaded.kind === "valid") throw new Error(`Expected faults, and got ${Bun.inspect(loaded)}`);
  return loaded.faults.map((fault) => formatFault(fault, FOLDER));
}

function firstOf(files: Files): string {
  const [first] = Object.keys(files) as [string];
  return first.startsWith("/") ? first : `${FOLDER}/${first}`;
}
