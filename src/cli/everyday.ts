// The words for every day: what is typed most often, for several instances at once.

import { type Argument, type Command, type Option, QUIET } from "./surface.ts";

const NAMES: Argument = {
  name: "NAME",
  kind: "instance",
  isList: true,
  text: "instances: names, ids, or the beginnings or ends of ids",
};

const OPTIONAL_NAMES: Argument = { ...NAMES, isOptional: true };

const ALL: Option = { name: "--all", text: "every instance that this concerns" };

const NO_WAIT: Option = { name: "--no-wait", text: "do not wait for the state" };

const TIMEOUT: Option = {
  name: "--timeout",
  value: { name: "TIME", kind: "duration" },
  text: "give up after this time, with exit code 6",
};

const PRIORITY: Option = {
  name: "--priority",
  value: { name: "high|normal|low", kind: "priority" },
  text: "how the system shares its processors; without it, that of its settings",
};

const FOLLOW: Option = { name: "--follow", short: "-f", text: "go on with what comes" };

const HISTORY: readonly Option[] = [
  {
    name: "--since",
    value: { name: "5m|TIME", kind: "time" },
    text: "only from then on: 5m ago, 13:06, 2026-11-23T13:06:28Z",
  },
  { name: "--until", value: { name: "5m|TIME", kind: "time" }, text: "only until then" },
];

function last(what: string): Option {
  return {
    name: "--lines",
    short: "-n",
    value: { name: "N", kind: "count" },
    text: `only the last N ${what}`,
  };
}

export const EVERYDAY: readonly Command[] = [
  {
    name: "ps",
    summary: "Show the instances and what they are doing",
    details: "The end of an id is enough wherever an instance is named.",
    arguments: [],
    options: [QUIET],
    examples: ["ps", "ps -q", "ps --json | jq -r .instances[].name"],
    json: '`{"instances":[INSTANCE, …]}`',
  },
  {
    name: "status",
    summary: "Say what an instance is doing, why, and what it has done last",
    details:
      "Exit code 3 if one of them does not run. Without a NAME it says what the daemon holds, as no\n" +
      "command at all does, with exit code 5 if there is none. Of a line of output it shows the first\n" +
      "500 characters, logs all of it.",
    arguments: [OPTIONAL_NAMES],
    options: [],
    examples: ["status ping", "status ping pong", "status"],
    json:
      '`{"instances":[INSTANCE, …]}`, each also with `resources` (null if it does not run), ' +
      '`links`, `events` and `output`; without a NAME `{"daemon","next"}`, as with no command',
  },
  {
    name: "why",
    summary: "Say in a paragraph what has brought an instance where it is, and what to do",
    arguments: [NAMES],
    options: [],
    examples: ["why ping"],
    json: '`{"instances":[{"id","name","state","why","next"}, …]}`; `next` is a command or null',
  },
  {
    name: "top",
    summary: "Watch what instances take, and how many messages go through them",
    details:
      "IN/S is what is delivered to an instance, OUT/S what it sends; QUEUED and DROPPED are of the\n" +
      "links to it. Keys: q ends, the letters below the table sort. Away from a terminal, or with\n" +
      "--json, it prints one table.",
    arguments: [],
    options: [
      {
        name: "--every",
        value: { name: "TIME", kind: "duration" },
        text: "between two looks (1s)",
      },
      {
        name: "--sort",
        value: { name: "COLUMN", kind: "column" },
        text: "name, cpu, memory, in, out, dropped or restarts",
      },
    ],
    examples: ["top", "top --sort cpu --every 500ms"],
    json:
      '`{"instances":[{"id","name","state","cpu_percent","resident_bytes","in_per_second",' +
      '"out_per_second","queued","dropped","restarts"}, …]}`; null for what does not run',
  },
  {
    name: "start",
    summary: "Start instances, and wait until they run",
    details:
      "An instance runs when it has connected, or has lasted for a moment. What happens meanwhile is\n" +
      "told on standard error. One that fails is shown with its cause and its last lines of output;\n" +
      "exit code 3. One that runs already is left alone.",
    arguments: [OPTIONAL_NAMES],
    options: [ALL, PRIORITY, TIMEOUT, NO_WAIT, QUIET],
    examples: ["start ping", "start ping pong --timeout 5s", "start --all"],
    json: '`{"instances":[{"id","name","changed","state","pid","exit"}, …]}`, those that succeeded',
  },
  {
    name: "stop",
    summary: "Stop instances, and wait until nothing of them is left",
    details: "One that does not run is left alone.",
    arguments: [OPTIONAL_NAMES],
    options: [ALL, TIMEOUT, NO_WAIT, QUIET],
    examples: ["stop ping", "stop ping pong", "stop --all"],
    json: "as `start`",
  },
  {
    name: "restart",
    summary: "Stop instances and start them again",
    details: "One that does not run is started; --all means those that run, or wait to.",
    arguments: [OPTIONAL_NAMES],
    options: [ALL, PRIORITY, TIMEOUT, NO_WAIT, QUIET],
    examples: ["restart ping", "restart --all"],
    json: "as `start`",
  },
  {
    name: "wait",
    summary: "Wait until instances are in a state",
    details:
      "Exit code 3 if that cannot be any more, since an instance has failed, has ended or is gone;\n" +
      "6 when the time is over. One that was not started yet, or was stopped, may still be started by\n" +
      "somebody else: it is waited for. A timeout of 0s only looks.",
    arguments: [NAMES],
    options: [
      {
        name: "--for",
        value: { name: "STATE", kind: "condition" },
        required: true,
        text: "running, connected, stopped, exited, failed, or message:TYPE",
      },
      TIMEOUT,
      QUIET,
    ],
    examples: [
      "wait ping --for connected --timeout 30s",
      "wait ping pong --for stopped",
      "wait ping --for message:demo::Ping",
    ],
    json: "as `start`",
  },
  {
    name: "logs",
    summary: "Show the output of instances, of all if none is named",
    details:
      "Lines of several instances come in the order of their times, each behind its instance's name.\n" +
      "With -f it begins with the last 10, unless -n or --since says otherwise; -n counts before --grep.",
    arguments: [OPTIONAL_NAMES],
    options: [
      FOLLOW,
      last("lines of each instance"),
      ...HISTORY,
      {
        name: "--grep",
        value: { name: "PATTERN", kind: "pattern" },
        text: "only lines that match this regular expression",
      },
      {
        name: "--stream",
        value: { name: "stdout|stderr", kind: "stream" },
        text: "only what was written there",
      },
      { name: "--times", text: "the time before each line" },
    ],
    examples: ["logs ping", "logs -f", "logs ping pong --since 5m --grep timeout"],
    json: 'a line `{"time","id","name","stream","line"}` for each',
  },
  {
    name: "events",
    summary: "Show what has happened to instances, links and the daemon",
    details: "With -f it begins with the last 10, unless -n or --since says otherwise.",
    arguments: [OPTIONAL_NAMES],
    options: [FOLLOW, last("events"), ...HISTORY],
    examples: ["events", "events ping --since 1h", "events -f"],
    json: 'a line `{"seq","time","kind","id","name","detail"}` for each; kinds as in `protocol.md`, P-50',
  },
];
