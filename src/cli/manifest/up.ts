// `up`, `plan` and `down`: a manifest against what is there; the plan, the question, the outcome.

import { readFileSync } from "node:fs";
import { basename } from "node:path";

import { type ErrorCode, errorCode, hinted, OrchestratorError } from "../../errors.ts";
import { showJson } from "../../json.ts";
import { escapeText } from "../../log.ts";
import { formatPlan } from "../../manifest/describe.ts";
import {
  endsRunning,
  type InstanceChange,
  isEmpty,
  type LinkChange,
  type Plan,
  planChanges,
  planRemoval,
  type Step,
} from "../../manifest/plan.ts";
import type { Present } from "../../manifest/present.ts";
import { Board } from "../board.ts";
import { errorDocument, exitCode, formatError, shellWord } from "../print.ts";
import { type Session } from "../session.ts";
import { reportFailure } from "../steer.ts";
import { CLI, type CommandName } from "../surface.ts";
import { paint } from "../table.ts";
import { DEFAULT_COLUMNS, DEFAULT_ROWS } from "../terminal.ts";
import { count, listed } from "../words.ts";
import { Application, type Outcome, stepName } from "./apply.ts";
import { type Given, readManifest } from "./file.ts";
import { checkPrograms, noteFaults } from "./programs.ts";
import { presentOf } from "./there.ts";

/** More instances than this are told line by line also on a screen: a board is for a look at it. */
const BOARD_LINES = 20;

/** So many steps are named of those that were done, and of those that were not. */
const STEPS_TOLD = 20;

/** The exit code of `plan --check` if there is something to do. */
const DIFFERS = 3;

export async function up(session: Session): Promise<number> {
  const { given, plan, present } = await compare(session);
  await show(session, plan);
  refuseConflicts(given, plan);
  if (plan.steps.length === 0) return finish(session, given, plan, []);
  checkPrograms(session, plan);
  const ending = plan.instances.filter(endsRunning);
  if (ending.length > 0 && session.terminal.canAsk && !(await agrees(session, ending))) return 1;
  return carryOut(session, "up", given, plan, present);
}

export async function plan(session: Session): Promise<number> {
  const { given, plan } = await compare(session);
  await show(session, plan);
  await finish(session, given, plan, plan.steps.map(open));
  noteFaults(session, plan);
  return session.values.has("--check") && !isEmpty(plan) ? DIFFERS : 0;
}

export async function down(session: Session): Promise<number> {
  const given = await readManifest(session, true);
  const present = await presentOf(session);
  const plan = planRemoval(given.manifest, present);
  await show(session, plan);
  if (plan.steps.length === 0) return finish(session, given, plan, []);
  const ending = plan.instances.filter(endsRunning);
  if (ending.length > 0 && !session.values.has("--yes")) {
    if (!session.terminal.canAsk) {
      throw new OrchestratorError(
        "misuse",
        `Cannot end ${count(ending.length, "running instance")} without being asked to`,
        {
          hint: `add -y: ${CLI} down ${[...session.values.all("FILE"), "-y"].map(shellWord).join(" ")}`,
        },
      );
    }
    if (!(await agrees(session, ending))) return 1;
  }
  return carryOut(session, "down", given, plan, present);
}

async function compare(
  session: Session,
): Promise<{ readonly given: Given; readonly plan: Plan; readonly present: Present }> {
  const given = await readManifest(session);
  const present = await presentOf(session);
  const adopt = session.values.has("--adopt");
  const plan = planChanges(given.manifest, present, { hash: hashFile, adopt });
  return { given, plan, present };
}

/** @throws `io`, naming the program */
function hashFile(path: string): string {
  try {
    return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
  } catch (cause) {
    throw new OrchestratorError("io", `Cannot read the program ${JSON.stringify(path)}`, { cause });
  }
}

const STYLES: Readonly<Record<string, string>> = {
  "+": "32",
  "~": "33",
  "-": "31",
  "!": "1;31",
  "=": "2",
};

async function show(session: Session, plan: Plan): Promise<void> {
  if (session.isJson || session.isQuiet) return;
  for (const line of formatPlan(plan)) {
    await session.print(paint(session.colour, STYLES[line[0] ?? ""] ?? "", escapeText(line)));
  }
}

/** @throws `wrong_state` if something of somebody else's is in the way */
function refuseConflicts({ file, manifest }: Given, { instances, links }: Plan): void {
  const conflicts = [...instances, ...links].filter(({ kind }) => kind === "conflict");
  if (conflicts.length === 0) return;
  const names = conflicts.map(({ name }) => name).join(", ");
  throw new OrchestratorError(
    "wrong_state",
    `Cannot apply ${JSON.stringify(basename(file))}: ${names} ${conflicts.length === 1 ? "does" : "do"} not belong to ${JSON.stringify(manifest.owner)}; nothing was changed`,
    { hint: `make it the manifest's with "${CLI} up --adopt", or rename what is wanted` },
  );
}

async function agrees(session: Session, ending: readonly InstanceChange[]): Promise<boolean> {
  const { terminal, values } = session;
  if (values.has("--yes")) return true;
  const { columns = Number.POSITIVE_INFINITY } = terminal;
  const question = "Continue? [y/N] ";
  let ends = `This ends ${listed(ending, terminal.columns)}.`;
  if (ends.length + question.length + 2 > columns) {
    terminal.report(`${ends}\n`);
    ends = "";
  } else ends += " ";
  const answer = await terminal.ask(`${ends}${question}`);
  if (/^y(es)?$/i.test(answer)) return true;
  terminal.report("nothing was changed\n");
  return false;
}

async function carryOut(
  session: Session,
  command: CommandName,
  given: Given,
  plan: Plan,
  present: Present,
): Promise<number> {
  const { terminal } = session;
  const board = boardFor(session, plan);
  const application = new Application(session, given.manifest, plan.steps, present, board);
  void terminal.interrupted.then(() => {
    board?.close();
    tellLeft(session, application.outcomes);
  });
  const { outcomes } = application;
  let code = 0;
  try {
    await application.run();
    for (const { step, state, error } of outcomes) {
      if (state !== "failed") continue;
      code ||= exitCode(error);
      await tellFailure(session, command, application, step, error);
    }
  } catch (error) {
    // The daemon is gone; whoever waits still learns how far it came.
    board?.close();
    tellLeft(session, outcomes);
    throw error;
  }
  if (code !== 0) tellLeft(session, outcomes);
  await finish(session, given, plan, outcomes);
  return code;
}

function boardFor(session: Session, { steps }: Plan): Board | undefined {
  const { terminal, isJson, isQuiet, reportColour } = session;
  const names = steps.flatMap((step) =>
    step.kind === "stop" || step.kind === "start" ? step.name : [],
  );
  const unique = [...new Set(names)];
  const { reportColumns = DEFAULT_COLUMNS, reportRows = DEFAULT_ROWS } = terminal;
  // The cursor stands on the last row.
  const fits = unique.length > 1 && unique.length <= Math.min(BOARD_LINES, reportRows - 1);
  if (!terminal.reportIsScreen || isJson || isQuiet || !fits) return undefined;
  return new Board(unique, terminal.report, reportColumns, reportColour);
}

async function tellFailure(
  session: Session,
  command: CommandName,
  application: Application,
  step: Step,
  error: unknown,
): Promise<void> {
  const name = stepName(step);
  const id = step.kind === "start" || step.kind === "stop" ? application.idOf(name) : undefined;
  const runtime = id === undefined ? undefined : (await session.info()).runtimes[id];
  if (id !== undefined && runtime !== undefined) {
    await reportFailure(session, command, { id, name, runtime }, error);
    return;
  }
  const asked = { command, values: session.values };
  const { terminal, isJson, reportColour } = session;
  const told = OUTPACED.includes(errorCode(error)) ? hinted(error, OUTPACED_HINT) : error;
  terminal.report(isJson ? errorDocument(told, asked) : formatError(told, asked, reportColour));
}

/** What a step of a plan that fits is never refused with: somebody was in between. */
const OUTPACED: readonly ErrorCode[] = ["already_exists", "not_found", "wrong_state"];
const OUTPACED_HINT =
  "somebody has changed that since the plan was made, perhaps another up or down";

/** What was done and what was not, after a failure or Ctrl-C. */
function tellLeft({ terminal, isJson }: Session, outcomes: readonly Outcome[]): void {
  if (isJson) return;
  const told = (states: readonly Outcome["state"][]): string => {
    const those = outcomes.filter(({ state }) => states.includes(state));
    const words = those
      .slice(0, STEPS_TOLD)
      .map(({ step }) => `${step.kind} ${stepName(step)}`)
      .join(", ");
    const more = those.length - STEPS_TOLD;
    return more > 0 ? `${words} and ${more} more` : words || "nothing";
  };
  terminal.report(
    escapeText(`done: ${told(["done"])}`) +
      "\n" +
      escapeText(`not done: ${told(["open", "failed"])}`) +
      "\n" +
      `hint: type it again to go on from there\n`,
  );
}

async function finish(
  session: Session,
  { file, manifest }: Given,
  plan: Plan,
  outcomes: readonly Outcome[],
): Promise<number> {
  if (session.isJson) {
    await session.print(showJson({ file, ...document(plan, outcomes) }));
    return 0;
  }
  if (session.isQuiet) {
    const { runtimes } = await session.info();
    const ids = Object.entries(runtimes).filter(([, { owner }]) => owner === manifest.owner);
    for (const [id] of ids) await session.print(id);
    return 0;
  }
  await session.print(summary(plan, outcomes));
  return 0;
}

function summary(plan: Plan, outcomes: readonly Outcome[]): string {
  const { instances, links } = plan;
  const things = (list: readonly { readonly kind: string }[], one: string): string =>
    count(list.length, one);
  if (isEmpty(plan)) {
    return instances.length + links.length === 0
      ? "nothing to do: there is nothing of this manifest"
      : `nothing to do: ${things(instances, "instance")} and ${things(links, "link")} are as wanted`;
  }
  const all: readonly (InstanceChange | LinkChange)[] = [...instances, ...links];
  const number = (kind: string): number => all.filter((change) => change.kind === kind).length;
  const words = {
    add: "to add",
    change: "to change",
    remove: "to remove",
    conflict: "in the way",
    same: "as wanted",
  };
  if (outcomes.every(({ state }) => state === "open")) {
    const parts = Object.entries(words).flatMap(([kind, text]) =>
      number(kind) === 0 ? [] : `${number(kind)} ${text}`,
    );
    return `plan: ${parts.join(", ")}`;
  }
  const verbs = {
    stop: "stopped",
    remove: "removed",
    add: "added",
    change: "changed",
    unlink: "unlinked",
    link: "linked",
    start: "started",
  };
  const parts = Object.entries(verbs).flatMap(([kind, text]) => {
    const done = outcomes.filter(
      ({ step, state }) => step.kind === kind && state === "done",
    ).length;
    return done === 0 ? [] : `${done} ${text}`;
  });
  return parts.join(", ") || "nothing was done";
}

function document(plan: Plan, outcomes: readonly Outcome[]): Record<string, unknown> {
  return {
    owner: plan.owner,
    same: isEmpty(plan),
    instances: plan.instances.map((change) => ({
      name: change.name,
      change: change.kind,
      differences: "differences" in change ? change.differences : [],
      restart: change.kind === "change" && change.restart,
    })),
    links: plan.links.map((change) => ({
      name: change.name,
      change: change.kind,
      differences: "differences" in change ? change.differences : [],
    })),
    steps: outcomes.map(({ step, state, error }) => ({
      do: step.kind,
      name: stepName(step),
      outcome: state,
      error: error === undefined ? null : error instanceof Error ? error.message : String(error),
    })),
  };
}

function open(step: Step): Outcome {
  return { step, state: "open", error: undefined };
}
