// Reads questions (a JSON array of simulations) from stdin and writes the simulator's answers to stdout, in their order.
// Runs as a process of its own: the simulator is a development tool, and nothing here is imported by what ships.
import { readFileSync } from 'node:fs'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const questions = JSON.parse(readFileSync(0, 'utf8'))
const answers = []
for (const question of questions) {
  const told = await runSimulation(question, { simulationMode: 'Strict' })
  if (told.resultType === 'error') {
    answers.push({ error: told.errors })
  } else {
    const results = told.resultType === 'single' ? [told.result] : told.results
    answers.push({
      result: told.overallResult,
      ignored: results.flatMap((each) => each.ignoredContextKeys ?? []),
      blocked: results.flatMap((each) => each.analysis?.blockedBy ?? [])
    })
  }
}
process.stdout.write(JSON.stringify(answers))
