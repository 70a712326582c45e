/** The report, as tables for the terminal and for Markdown. */

import { describeMachine } from '../../bench/harness/machine.js';
import type { Table } from '../../bench/harness/question.js';
import { markdownTable, plainTable } from '../../bench/harness/text.js';
import { short } from '../../bench/harness/units.js';
import { kinds } from './kinds.js';
import type { Counts } from './ledger.js';
import { LEAST_ROUNDS } from './memory.js';
import { PER_SECOND } from './round.js';
import type { SoakResult } from './run.js';

export function hasPassed({ ledger, lost }: SoakResult): boolean {
  return lost === 0 && ledger.wrong === 0 && ledger.problems.total === 0;
}

const count = (value: number) => value.toLocaleString('en');

function tables(result: SoakResult): Table[] {
  const { ledger, loop, seconds } = result;
  return [
    {
      title: 'Verdict',
      columns: ['what', 'value'],
      rows: [
        ['seed', String(result.seed)],
        [
          'load',
          `${short(seconds, 's')}, ${count(Math.round(ledger.sent / seconds))} requests a second`,
        ],
        ['requests', count(ledger.sent)],
        ['lost: sent and not settled', count(result.lost)],
        ['wrong: ended as they must not', count(ledger.wrong)],
        ['response bytes verified', short(ledger.verifiedBytes, 'bytes')],
        [
          'compared with the model',
          `${count(ledger.audits)} times, ${count(ledger.compared)} figures`,
        ],
        ['latest timeout', `${short(ledger.latestTimeoutMs, 'ms')} after the deadline`],
        [
          'main thread',
          `${short(loop.loopBusy * 100, '%')} busy, delayed ${short(loop.loopDelayP99Ms, 'ms')} at p99, ${short(loop.loopDelayMaxMs, 'ms')} at most`,
        ],
        ['CPU, lanes included', `${short((result.cpuSeconds / seconds) * 100, '%')} of a core`],
        ['lanes started', count(ledger.lanesStarted)],
        ['lanes that crashed', count(ledger.events.of('laneExited'))],
        ['lanes killed for a stuck call', count(ledger.killed)],
        ['lanes killed from outside', count(ledger.killedFromOutside)],
        ['threads of lanes ended', count(ledger.threadsEnded)],
        ['lanes recycled', count(ledger.events.of('laneRecycled'))],
      ],
    },
    counted('How requests ended', 'outcome', 'requests', ledger.outcomes),
    counted('Changes', 'change', 'times', ledger.changes),
    counted(
      'What became of the libraries taken out of service',
      'library',
      'versions',
      ledger.drains,
    ),
    counted('Events', 'event', 'times', ledger.events),
    {
      title: 'At the beginning and at the end',
      columns: ['what', 'beginning', 'end', 'may grow by', 'verdict'],
      rows: result.resources.map(({ what, before, after, tolerance, ok }) => [
        what,
        count(before),
        count(after),
        tolerance === null ? '' : count(tolerance),
        tolerance === null ? 'not judged' : ok ? 'as it should be' : 'LEFT OVER',
      ]),
      note: result.resources
        .filter(({ tolerance }) => tolerance !== 0)
        .map(({ what, why }) => `${what}: ${why}.`)
        .join(' '),
    },
    {
      title: 'Memory after each round, when nothing is loaded',
      columns: ['round', 'requests', 'lanes started', 'JavaScript heap', 'resident'],
      rows: result.memory.map(({ requests, lanes, heapKiB, rssKiB }, round) => [
        String(round + 1),
        count(requests),
        count(lanes),
        short(heapKiB * 1024, 'bytes'),
        short(rssKiB * 1024, 'bytes'),
      ]),
      note:
        result.memory.length < LEAST_ROUNDS ? 'So few rounds do not tell growth from warm-up.' : '',
    },
  ];
}

function counted(title: string, what: string, unit: string, counts: Counts): Table {
  const rows = Object.entries(counts.toJSON()).map(([name, times]) => [name, count(times)]);
  return { title, columns: [what, unit], rows };
}

function problems({ ledger }: SoakResult): string[] {
  return Object.entries(ledger.problems.toJSON()).map(([what, times]) => `${times} × ${what}`);
}

const conclusion = (result: SoakResult) =>
  hasPassed(result)
    ? 'Nothing was lost, wrong or left behind.'
    : `Found ${problems(result).length} problems:`;

export function reportText(result: SoakResult): string {
  const found = problems(result).map((line) => `  ${line}`);
  const before = result.ledger.stepsBefore.map((line) => `  ${line}`);
  const steps = before.length === 0 ? [] : ['', 'Before the first of them:', ...before];
  const said = [conclusion(result), ...found, ...steps].join('\n');
  return [...tables(result).map(plainTable), said].join('\n\n');
}

export function reportMarkdown(result: SoakResult): string {
  const { node, cpu, cores, memoryGiB, system, commit } = describeMachine();
  const taking = kinds.filter(({ id }) => result.endpoints.includes(id));
  const endpoints = taking.map(({ id, libraries, trouble }) => [id, trouble, libraries.join(', ')]);
  return [
    '# Soak',
    `Written by \`npm run soak -- --minutes ${Math.round(result.seconds / 60)} --seed ${result.seed} --report docs/soak.md\`. Node ${node}, ${cores} cores (${cpu}), ${memoryGiB} GiB, ${system}, commit ${commit ?? 'unknown'}.`,
    `**${conclusion(result)}**`,
    ...problems(result).map((line) => `- ${line}`),
    `Several endpoints serve at once, each with several callers and somebody who deploys to it. Everything is chosen at random from the seed. It goes in rounds, after each of which everything is unloaded. A request ends well only as its call, its version and what was done to it allow: a response has every byte verified and comes from the version that was active when it was sent; a timeout comes only if one was given, and not early; a request is dropped only if its version was swapped at once, unloaded or out of time; a count of calls comes only once; a crash ends only the request that caused it, and is told as it was; requests are refused for a crash loop only if so many that crash were sent. Views that are detached, shrink or grow, signals of other classes and what JSON would lose are among the requests. The registry's events, drain reports and statistics have to agree with what callers were told: ${PER_SECOND} times a second, every counter of every version is compared with a model that asks the engine for nothing. An endpoint that refuses, answers nothing or lacks lanes for ${result.patienceSeconds} s without a reason is a fault. After each round, threads, processes, descriptors, mapped libraries and files are back at what they were. In some rounds 50 endpoints are loaded at once, in some the registry is closed in the middle of everything.`,
    markdownTable({ columns: ['endpoint', 'trouble', 'libraries'], rows: endpoints }),
    ...tables(result).flatMap((table) => [
      `## ${table.title}`,
      markdownTable(table),
      ...(table.note ? [table.note] : []),
    ]),
  ]
    .join('\n\n')
    .concat('\n');
}

export function reportJson(result: SoakResult): string {
  const { ledger, ...rest } = result;
  const { sent, settled, wrong, verifiedBytes, outcomes, changes, drains, events } = ledger;
  const requests = { sent, settled, wrong, verifiedBytes, latestTimeoutMs: ledger.latestTimeoutMs };
  return JSON.stringify(
    {
      passed: hasPassed(result),
      ...rest,
      requests,
      outcomes,
      changes,
      drains,
      events,
      killedFromOutside: ledger.killedFromOutside,
      compared: ledger.compared,
      problems: ledger.problems,
      stepsBefore: ledger.stepsBefore,
    },
    null,
    2,
  );
}
