// `runtime add`: a program and its settings become an instance, by its path or as a copy.

import { statSync } from "node:fs";
import { resolve } from "node:path";

import { OrchestratorError } from "../errors.ts";
import { showJson } from "../json.ts";
import { escapeText } from "../log.ts";
import { parseEnvironmentFile } from "../manifest/variables.ts";
import { type InstanceId, newInstanceId, parseInstanceId, type Priority } from "../model.ts";
import {
  argumentsFault,
  environmentFault,
  type InstanceSettings,
  parseDuration,
  pathFault,
  type RestartPolicy,
  type StopSignal,
} from "../settings.ts";
import type { Request } from "../protocol.ts";
import type { Values } from "./parse.ts";
import type { Session } from "./session.ts";
import { type ReadText, withTexts } from "./text.ts";

export async function add(session: Session): Promise<void> {
  const { terminal, values } = session;
  const path = findProgram(values.get("PATH") as string, terminal.folder, terminal.env);
  const id = parseInstanceId(values.get("--id") ?? "") ?? newInstanceId();
  const settings = await withTexts((read) => settingsOf(values, terminal.folder, read));
  let bytes: number | null = null;
  if (values.has("--copy")) {
    const client = await session.client();
    const { progressOf } = await import("./progress.ts");
    const progress = progressOf(session);
    bytes = await client
      .upload(id, path, settings, (sent, total) => progress.update(sent, total))
      .finally(() => progress.end());
  } else {
    await session.request({ kind: "Add", id, path, settings });
  }
  const started = values.has("--start");
  const sent = bytes === null ? "" : ` (sent ${bytes} bytes)`;
  if (session.isQuiet) await session.print(id);
  else if (!session.isJson) await session.print(`added instance ${id}${sent}`);
  if (settings.name === undefined) await reportName(session, id);
  if (bytes === null && !started) doubt(session, path, values.get("PATH") as string);
  if (started) {
    const request: Request = { kind: "Start", id, priority: undefined };
    await session.requestOf(id, request, settings.name);
  }
  if (session.isJson) {
    const name = settings.name ?? null;
    await session.print(showJson({ id, name, bytes, started }));
  } else if (started && !session.isQuiet) await session.print(`started instance ${id}`);
}

/** Tells people what the daemon has called it. It is added, so that a fault here is none of it. */
async function reportName(session: Session, id: InstanceId): Promise<void> {
  if (session.isQuiet || session.isJson) return;
  const names = await session.named().catch(() => undefined);
  const name = names?.get(id);
  if (name) session.terminal.report(`named ${escapeText(name)}\n`);
}

/** Says at once, at a terminal, what a start would say. A file may come later, and that of another machine is not ours. */
function doubt(session: Session, path: string, typed: string): void {
  const isForPeople = session.terminal.reportIsScreen && !session.isQuiet && !session.isJson;
  if (!isForPeople || session.address.kind !== "unix" || !path.includes("/")) return;
  let reason: string | undefined;
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    const elsewhere = typed.includes("/") ? "" : ", nor such a program in PATH";
    if (found === undefined) reason = `there is no such file yet${elsewhere}`;
    else if (found.isDirectory()) reason = "it is a folder";
    else if (!found.isFile()) reason = "it is not a regular file";
    else if ((found.mode & 0o111) === 0) reason = "it is not executable yet: chmod +x";
  } catch {
    return; // the daemon may see what we do not
  }
  if (reason !== undefined) session.terminal.report(`note: ${escapeText(path)}: ${reason}\n`);
}

/** The settings of an instance that options give; relative paths are the user's. */
function settingsOf(values: Values, folder: string, read: ReadText): Partial<InstanceSettings> {
  const settings: { -readonly [K in keyof InstanceSettings]?: InstanceSettings[K] } = {
    privileged: values.has("--privileged"),
  };
  const text = (option: string, take: (value: string) => void): void => {
    const value = values.get(option);
    if (value !== undefined) take(value);
  };
  const args = values.all("ARG");
  refuse("the arguments", argumentsFault(args), "write them into a script, and add that");
  if (args.length > 0) settings.args = args;
  const env = environmentOf(values, folder, read);
  refuse("the environment", environmentFault(env), "let a script set the variables, and add that");
  if (Object.keys(env).length > 0) settings.env = env;
  text("--name", (name) => (settings.name = name));
  text("--cwd", (path) => (settings.cwd = locate(folder, path, "--cwd")));
  text("--restart", (policy) => (settings.restart = policy as RestartPolicy));
  text("--restart-delay", (time) => (settings.restartDelayMs = parseDuration(time) as number));
  text("--stop-signal", (signal) => (settings.stopSignal = signal as StopSignal));
  text("--stop-grace", (time) => (settings.stopGraceMs = parseDuration(time) as number));
  text("--priority", (priority) => (settings.priority = priority as Priority));
  return settings;
}

/** What is known to be refused is told in the words of who types. @throws `misuse` if there is a fault */
function refuse(what: string, fault: string | undefined, hint: string): void {
  if (fault === undefined) return;
  throw new OrchestratorError("misuse", `Cannot use ${what}: ${fault}`, { hint });
}

/** The path that `text` names in a folder. @throws `misuse` if the whole of it is too long */
function locate(folder: string, text: string, name: string): string {
  const path = resolve(folder, text);
  const fault = pathFault(path);
  refuse(name, fault && `as a whole, it ${fault}`, "move what it names to a shorter path");
  return path;
}

/** @throws `misuse` for a file that cannot be read or used */
function environmentOf(values: Values, folder: string, read: ReadText): Record<string, string> {
  const env = new Map<string, string>(); // to an object, a key may be its prototype
  for (const file of values.all("--env-file")) {
    const { variables, faults } = parseEnvironmentFile(readText(resolve(folder, file), file, read));
    for (const [name, { value }] of variables) env.set(name, value);
    const [first] = faults;
    const fault =
      first === undefined
        ? environmentFault(Object.fromEntries(env))
        : `line ${first.line}: ${first.message}`;
    if (fault !== undefined) {
      throw new OrchestratorError(
        "misuse",
        `Cannot use --env-file ${JSON.stringify(file)}: ${fault}`,
      );
    }
  }
  for (const variable of values.all("--env")) {
    const at = variable.indexOf("=");
    env.set(variable.slice(0, at), variable.slice(at + 1));
  }
  return Object.fromEntries(env);
}

function readText(path: string, file: string, read: ReadText): string {
  try {
    return read(path);
  } catch (cause) {
    throw new OrchestratorError("misuse", `Cannot read --env-file ${JSON.stringify(file)}`, {
      cause,
    });
  }
}

/**
 * The path of a program: relative ones in the user's folder; a bare name that is no file there is
 * searched in PATH.
 */
export function findProgram(
  text: string,
  folder: string,
  env: Readonly<Record<string, string | undefined>>,
): string {
  const path = locate(folder, text, "PATH");
  if (text.includes("/") || isFile(path)) return path;
  return Bun.which(text, { PATH: env["PATH"] ?? "", cwd: folder }) ?? path;
}

/** What cannot be looked at is none. */
function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
