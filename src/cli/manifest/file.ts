// A manifest on its way in: which file it is, what it includes, and all that is wrong with it.

import { existsSync, statSync } from "node:fs";
import { basename, join, resolve } from "node:path";

import { OrchestratorError } from "../../errors.ts";
import { escapeText } from "../../log.ts";
import { checkManifest, type Loaded, loadManifest } from "../../manifest.ts";
import { formatFault } from "../../manifest/fault.ts";
import type { Sources } from "../../manifest/section.ts";
import type { Manifest } from "../../manifest/wanted.ts";
import type { Session } from "../session.ts";
import { CLI } from "../surface.ts";
import { withTexts } from "../text.ts";
import { count } from "../words.ts";

/** What a manifest is called, the first one that is there. */
const NAMES = ["toml", "yaml", "yml", "json", "ts"].map((end) => `orchestrator.${end}`);

/** A checked manifest, and the file that it begins with. */
export interface Given {
  /** Absolute. */
  readonly file: string;
  readonly manifest: Manifest;
}

/**
 * Reads the manifest that FILE names, or the one of the user's folder; for a removal with less care.
 * @throws `misuse` if there is none; `bad_request` after all its faults were told
 */
export async function readManifest(
  session: Session,
  isForRemoval: boolean = false,
): Promise<Given> {
  const { terminal } = session;
  const file = findFile(terminal.folder, session.values.get("FILE"));
  const loaded = await withTexts((read) =>
    load(file, { read, environment: terminal.env, isForRemoval }),
  );
  if (loaded.kind === "valid") return { file, manifest: loaded.manifest };
  const faults = loaded.faults.map((fault) => formatFault(fault, terminal.folder));
  const message = `Cannot use the manifest ${JSON.stringify(basename(file))}: ${count(faults.length, "fault")}; nothing was changed`;
  if (!session.isJson) {
    terminal.report(faults.map((fault) => `${escapeText(fault)}\n`).join(""));
    throw new OrchestratorError("bad_request", message);
  }
  const cause = new AggregateError(faults.map((fault) => new Error(fault)));
  throw new OrchestratorError("bad_request", message, { cause });
}

function findFile(folder: string, given: string | undefined): string {
  const path = resolve(folder, given ?? ".");
  if (!isFolder(path)) return path; // if it is not there, whoever reads it says so
  const name = NAMES.find((candidate) => existsSync(join(path, candidate)));
  if (name !== undefined) return join(path, name);
  throw new OrchestratorError("misuse", `Cannot find a manifest in ${JSON.stringify(path)}`, {
    cause: new Error(`there is none of ${NAMES.join(", ")}`),
    hint: `name the file, or write one with "${CLI} export > orchestrator.toml"`,
  });
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

async function load(file: string, sources: Sources): Promise<Loaded> {
  if (!/\.[cm]?[jt]s$/.test(file)) return loadManifest(file, sources);
  try {
    statSync(file); // of one that is not there, the engine tells who has imported it: this file
    const module = (await import(file)) as { readonly default?: unknown };
    // Taken for an empty one, it would end everything that it has made.
    if (!("default" in module)) throw new Error("it has no default export: export default { … }");
    if (module.default === undefined || module.default === null)
      throw new Error("its default export is nothing: an empty manifest is {}");
    return checkManifest(file, module.default, sources);
  } catch (error) {
    throw new OrchestratorError("bad_request", `Cannot run the manifest ${JSON.stringify(file)}`, {
      cause: withPlace(error),
    });
  }
}

/** The first fault of what does not compile, which says where it is in a field of its own. */
function withPlace(error: unknown): unknown {
  const first: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (!(first instanceof BuildMessage) || first.position === null) return error;
  const { file, line, column } = first.position;
  return new Error(`${file}:${line}:${column}: ${first.message}`);
}
