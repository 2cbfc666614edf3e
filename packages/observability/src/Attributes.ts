/**
 * The keys of what orchestra adds to metrics, spans and logs.
 *
 * None of them is part of OpenTelemetry's semantic conventions, so none of them may change unseen: dashboards, alerts and
 * queries are written with them. `version` goes up when one does. Keys that the conventions have (`error.type`,
 * `service.name`, `messaging.*`) are used as they are, and stand where they are used.
 *
 * @since 0.1.0
 */

/**
 * The version of these keys.
 *
 * @category constants
 * @since 0.1.0
 */
export const version = "0.1"

/** The name of a routine as it was given: of a template, never of an instance. @since 0.1.0 */
export const routineName = "orchestra.routine.name"

/** The id of one routine. Of spans and logs, never of metrics. @since 0.1.0 */
export const routineId = "orchestra.routine.id"

/** Which run of it, from 1. Of spans and logs. @since 0.1.0 */
export const routineAttempt = "orchestra.routine.attempt"

/** @since 0.1.0 */
export const routineState = "orchestra.routine.state"

/** How a run ended. @since 0.1.0 */
export const exitReason = "orchestra.exit.reason"

/** How the run before ended, or that it was a sibling's that did. @since 0.1.0 */
export const restartReason = "orchestra.restart.reason"

/** @since 0.1.0 */
export const supervisorName = "orchestra.supervisor.name"

/** Of spans and logs. @since 0.1.0 */
export const supervisorPath = "orchestra.supervisor.path"

/** @since 0.1.0 */
export const supervisorDecision = "orchestra.supervisor.decision"

/** @since 0.1.0 */
export const mailboxName = "orchestra.mailbox.name"

/** @since 0.1.0 */
export const mailboxOutcome = "orchestra.mailbox.outcome"

/** @since 0.1.0 */
export const mailboxOperation = "orchestra.mailbox.operation"

/** @since 0.1.0 */
export const busTopic = "orchestra.bus.topic"

/** @since 0.1.0 */
export const busOutcome = "orchestra.bus.outcome"

/** @since 0.1.0 */
export const groupName = "orchestra.group.name"

/** How a group or a saga ended. @since 0.1.0 */
export const outcome = "orchestra.outcome"

/** @since 0.1.0 */
export const sagaName = "orchestra.saga.name"

/** @since 0.1.0 */
export const sagaStepName = "orchestra.saga.step.name"

/** @since 0.1.0 */
export const sagaStepDirection = "orchestra.saga.step.direction"

/** @since 0.1.0 */
export const shutdownPhase = "orchestra.shutdown.phase"

/** @since 0.1.0 */
export const telemetrySignal = "orchestra.telemetry.signal"

/** What a line of the log tells: `routine.started`, `gave_up`, and so on. @since 0.1.0 */
export const event = "orchestra.event"

/** Of what somebody does to a routine from outside. Of logs. @since 0.1.0 */
export const actionId = "orchestra.action.id"

/** From the decision to the start, in seconds. Of spans and logs. @since 0.1.0 */
export const restartDelay = "orchestra.restart.delay_s"

/** How many restarts a line of the log stands for. @since 0.1.0 */
export const restarts = "orchestra.restarts"

/** Of spans. @since 0.1.0 */
export const supervisorStrategy = "orchestra.supervisor.strategy"

/** Restarts within the period. Of spans. @since 0.1.0 */
export const budgetUsed = "orchestra.supervisor.budget.used"

/** Restarts that are allowed. Of spans. @since 0.1.0 */
export const budgetMax = "orchestra.supervisor.budget.max"

/** How many inboxes a message reached. Of spans. @since 0.1.0 */
export const busFanOut = "orchestra.bus.fan_out"

/** How many tasks were forked. Of spans. @since 0.1.0 */
export const groupSize = "orchestra.group.size"

/** How many of them may run at once. Of spans. @since 0.1.0 */
export const groupConcurrency = "orchestra.group.concurrency"

/** How many routines ignored their interruption. Of spans. @since 0.1.0 */
export const shutdownForced = "orchestra.shutdown.forced"

/** How many routines were left. Of spans. @since 0.1.0 */
export const shutdownRemaining = "orchestra.shutdown.remaining"

/** How many slow stops have no span. Of spans. @since 0.1.0 */
export const shutdownOmitted = "orchestra.shutdown.omitted"

/** Whether a routine ignored its interruption. Of spans. @since 0.1.0 */
export const stopForced = "orchestra.stop.forced"

/** What a link leads to: the run before, the supervisor, the sender. Of links. @since 0.1.0 */
export const link = "orchestra.link"

/** How many events, links and attributes a span had no room for. Of spans. @since 0.1.0 */
export const spanDropped = "orchestra.span.dropped"

/** OpenTelemetry's own: the type of an error. @since 0.1.0 */
export const errorType = "error.type"

/** OpenTelemetry's own: marks the series of all that no other had room for. @since 0.1.0 */
export const overflow = "otel.metric.overflow"
