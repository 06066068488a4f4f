// R15: two requests at the same time, from two connections, in whichever order they are read: each is
// answered by the rules, one run at a time, and nothing is left in the end.

import { createHash } from "node:crypto";

import type { Info } from "../../src/protocol/info.ts";
import { type Daemon, withDaemon } from "../support/daemon.ts";
import { type Answer, type Control, frame, until } from "../support/wire.ts";
import { demand, type Outcome } from "./outcome.ts";

/** What a race has at hand. */
interface Course {
  readonly daemon: Daemon;
  /** Two connections that know nothing of each other. */
  readonly one: Control;
  readonly two: Control;
  /** Programs that run until they are stopped, and that fail at once. */
  readonly sleeper: string;
  readonly crasher: string;
}

const isOk = (answer: Answer): boolean => answer.Err === undefined;

/** Refused because of how the instance stands, and for no other reason. */
const isLate = ({ code }: Answer): boolean => code === "wrong_state" || code === "not_found";

async function add(course: Course, settings: object = {}): Promise<string> {
  const id = crypto.randomUUID();
  await course.one.ok({ Add: { id, path: course.sleeper, ...settings } });
  return id;
}

async function remove({ one, daemon }: Course, id: string): Promise<void> {
  await one.ok({ Remove: id });
  const left = daemon.processes().filter((process) => process.id === id);
  demand(left.length === 0, "Nothing is left of a stopped instance", left);
}

/** Asks both at once. */
function both({ one, two }: Course, first: unknown, second: unknown): Promise<[Answer, Answer]> {
  return Promise.all([one.ask(first), two.ask(second)]);
}

async function stateOf({ one }: Course, id: string): Promise<string | undefined> {
  return ((await one.ok("Info")) as Info).runtimes[id]?.state;
}

const PROGRAM = Buffer.from("#!/bin/sh\nexec sleep 1000\n");

/** Uploads the program and returns the answer that counts. */
async function upload(control: Control, id: string): Promise<Answer> {
  const hash = [...createHash("sha256").update(PROGRAM).digest()];
  const begun = await control.ask({ AddWithBinary: { id, length: PROGRAM.length, hash } });
  if (!isOk(begun)) return begun;
  control.wire.send(frame(PROGRAM));
  return control.answer();
}

export type Race =
  | "start ∥ start"
  | "stop ∥ stop"
  | "start ∥ stop"
  | "remove ∥ start"
  | "stop in backoff"
  | "clear ∥ privileged start"
  | "re-add the same id at once"
  | "an instance that stops itself"
  | "upload ∥ remove";

export const RACES: Readonly<Record<Race, (course: Course) => Promise<void>>> = {
  async "start ∥ start"(course) {
    const id = await add(course);
    const answers = await both(course, { Start: id }, { Start: id });
    demand(answers.filter(isOk).length === 1 && answers.some(isLate), "One starts it", answers);
    const count = course.daemon.processes().filter((process) => process.id === id).length;
    demand(count <= 1, "It runs once", count);
    await course.one.ok({ Stop: id });
    await remove(course, id);
  },

  async "stop ∥ stop"(course) {
    const id = await add(course);
    await course.one.ok({ Start: id });
    const answers = await both(course, { Stop: id }, { Stop: id });
    const isDone = answers.some(isOk) && answers.every((answer) => isOk(answer) || isLate(answer));
    demand(isDone, "Both are told that it is stopped", answers);
    await remove(course, id);
  },

  async "start ∥ stop"(course) {
    const id = await add(course);
    const [started, stopped] = await both(course, { Start: id }, { Stop: id });
    demand(isOk(started) && (isOk(stopped) || isLate(stopped)), "It starts", [started, stopped]);
    const state = await stateOf(course, id);
    demand(state === (isOk(stopped) ? "stopped" : "running"), "It is as was answered", state);
    if (!isOk(stopped)) await course.one.ok({ Stop: id });
    await remove(course, id);
  },

  async "remove ∥ start"(course) {
    const id = await add(course);
    const [removed, started] = await both(course, { Remove: id }, { Start: id });
    const answers = [removed, started];
    demand(answers.filter(isOk).length === 1 && answers.some(isLate), "One has its way", answers);
    const state = await stateOf(course, id);
    demand(state === (isOk(started) ? "running" : undefined), "It is as was answered", state);
    if (isOk(removed)) return;
    await course.one.ok({ Stop: id });
    await remove(course, id);
  },

  async "stop in backoff"(course) {
    const settings = { path: course.crasher, restart: "always", restart_delay_ms: 20 };
    const id = await add(course, settings);
    await course.one.ok({ Start: id });
    await until("it waits", async () => (await stateOf(course, id)) === "waiting");
    const answer = await course.two.ask({ Stop: id });
    demand(isOk(answer) || isLate(answer), "It is stopped, or has failed before", answer);
    const state = await stateOf(course, id);
    demand(state === (isOk(answer) ? "stopped" : "failed"), "It is as was answered", state);
    await remove(course, id);
  },

  async "clear ∥ privileged start"(course) {
    const { daemon, one } = course;
    const ids = await Promise.all(Array.from({ length: 4 }, () => add(course)));
    for (const id of ids.slice(2)) await one.ok({ Start: id });
    const master = await daemon.puppet({ privileged: true });
    const wire = await master.speak("veecle");
    const cleared = one.ask("Clear");
    for (const id of ids) {
      wire.send(
        `${JSON.stringify({ ControlRequest: { StartRuntime: { id, priority: null } } })}\n`,
      );
    }
    demand(isOk(await cleared), "Everything is cleared");
    wire.close();
    const { runtimes } = (await one.ok("Info")) as Info;
    demand(Object.keys(runtimes).length === 0, "No instance is left", runtimes);
    const left = daemon.processes();
    demand(left.length === 0, "No process is left", left);
  },

  async "re-add the same id at once"(course) {
    const { one } = course;
    const id = await add(course, { path: course.crasher, restart: "always" });
    await one.ok({ Start: id });
    await until("it waits", async () => (await stateOf(course, id)) === "waiting");
    for (const request of [
      { Remove: id },
      { Add: { id, path: course.sleeper } },
      { Link: { type_name: "T", to: id } },
      { Start: id },
      "Info",
    ]) {
      one.send(request);
    }
    for (let i = 0; i < 4; i++) demand(isOk(await one.answer()), "Each succeeds");
    const { runtimes } = (await one.answer()).Ok as Info;
    const { state, exit, restart } = runtimes[id] ?? {};
    const isNew = state === "running" && exit === null && restart === "no";
    demand(isNew, "It knows nothing of its predecessor", runtimes[id]);
    await one.ok({ Stop: id });
    await remove(course, id);
  },

  async "an instance that stops itself"(course) {
    const { daemon, one } = course;
    const puppet = await daemon.puppet({ privileged: true });
    const wire = await puppet.connect();
    wire.send(`${JSON.stringify({ ControlRequest: { StopRuntime: { id: puppet.id } } })}\n`);
    await until("it is stopped", async () => (await stateOf(course, puppet.id)) === "stopped");
    wire.close();
    await one.ok({ Start: puppet.id }); // and nothing hinders it from being started again
    await one.ok({ Stop: puppet.id });
    await remove(course, puppet.id);
  },

  async "upload ∥ remove"(course) {
    const { one, two } = course;
    const [first, second] = [crypto.randomUUID(), crypto.randomUUID()];
    demand(isOk(await upload(one, first)), "It is uploaded");
    const [removed, uploaded] = await Promise.all([
      one.ask({ Remove: first }),
      upload(two, second), // the same bytes
    ]);
    demand(isOk(removed) && isOk(uploaded), "Both succeed", [removed, uploaded]);
    await one.ok({ Start: second });
    await one.ok({ Stop: second });
    const [late, gone] = await Promise.all([one.ask({ Remove: first }), upload(two, first)]);
    demand(isOk(gone) && (isOk(late) || isLate(late)), "Each has its way", [late, gone]);
    if (!isOk(late)) await one.ok({ Remove: first });
    await remove(course, second);
  },
};

/** Runs a race again and again with one daemon, which is audited in the end. */
export async function race(name: Race, count: number): Promise<Outcome> {
  await withDaemon(async (daemon) => {
    const course: Course = {
      daemon,
      one: await daemon.control("native"),
      two: await daemon.control("native"),
      sleeper: daemon.script("#!/bin/sh\nexec sleep 1000\n"),
      crasher: daemon.program("crasher.sh", "code", 3),
    };
    for (let i = 0; i < count; i++) await RACES[name](course);
  });
  return { work: `${count} × ${name}`, figures: [] };
}
