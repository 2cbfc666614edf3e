%% Runs sequences of operations on OTP's own supervisor: one on each line of the input, and on each line of the output
%% what was seen of it, as JSON. See Supervisor.otp.test.ts.
-module(supervisor_peer).
-behaviour(supervisor).
-export([main/0, init/1, start_leaf/1, start_tree/2]).

main() ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    [ets:new(Table, [named_table, public, ordered_set]) || Table <- [plans, leaves, journal]],
    loop().

loop() ->
    case io:get_line("") of
        Line when is_list(Line) ->
            {ok, Tokens, _} = erl_scan:string(Line),
            {ok, Sequence} = erl_parse:parse_term(Tokens),
            io:put_chars([json(run(Sequence)), "\n"]),
            loop();
        _ ->
            halt(0)
    end.

%% {Spec, [{Path, [ok | fail | ignore]}], [Operation]} -> [{Answer, Events, States, Running}], first of the start.
run({Spec, Plans, Operations}) ->
    [ets:delete_all_objects(Table) || Table <- [plans, leaves, journal]],
    ets:insert(plans, Plans),
    case start_tree("", Spec) of
        {ok, Top} ->
            Seen = [seen(Top, "ok") | [seen(Top, do(Top, Operation)) || Operation <- Operations]],
            do(Top, stop),
            Seen;
        {error, _} ->
            receive {'EXIT', _, _} -> ok end,
            [seen(none, "start_failed")]
    end.

seen(Top, Answer) ->
    States = quiet(Top),
    Events = [Event || {_, Event} <- ets:tab2list(journal)],
    ets:delete_all_objects(journal),
    {Answer, Events, States, [Path || {Path, Pid} <- ets:tab2list(leaves), is_process_alive(Pid)]}.

%% -- operations --

do(_, {plan, Path, Starts}) ->
    ets:insert(plans, {Path, Starts}),
    none;
do(Top, {exit, [{Path, How}]}) ->
    case ets:lookup(leaves, Path) of
        [{_, Pid}] ->
            Ref = monitor(process, Pid),
            case is_process_alive(Pid) of
                true when How =:= kill -> note("end ", Path), exit(Pid, kill);
                _ -> Pid ! {finish, How}
            end,
            receive {'DOWN', Ref, _, _, _} -> noticed(Top, Pid) end;
        [] -> ok
    end,
    none;
do(Top, {start_child, Child}) -> started(catch supervisor:start_child(Top, child("", Child)));
do(Top, {restart_child, Id}) -> started(catch supervisor:restart_child(Top, Id));
do(Top, {terminate_child, Id}) -> answer(catch supervisor:terminate_child(Top, Id));
do(Top, {delete_child, Id}) -> answer(catch supervisor:delete_child(Top, Id));
do(Top, stop) ->
    Ref = monitor(process, Top),
    exit(Top, shutdown),
    receive {'DOWN', Ref, _, _, _} -> ok end,
    receive {'EXIT', Top, _} -> ok after 0 -> ok end,
    "ok".

started({ok, undefined}) -> "stopped";
started({ok, _}) -> "running";
started({error, {already_started, _}}) -> "already_started";
started({error, already_present}) -> "already_present";
started({error, Error}) when Error =:= running; Error =:= restarting; Error =:= not_found -> atom_to_list(Error);
started({error, {bad_combination, _}}) -> "invalid";
started({error, _}) -> "start_failed";
started({'EXIT', _}) -> "not_running".

answer(ok) -> "ok";
answer({error, Error}) -> atom_to_list(Error);
answer({'EXIT', _}) -> "not_running".

%% -- waiting until nothing moves --

%% Waits until the supervisors know that a leaf has ended.
noticed(Top, Leaf) ->
    case catch lists:member(Leaf, pids(Top)) of
        true -> erlang:yield(), noticed(Top, Leaf);
        _ -> ok
    end.

pids(Top) ->
    lists:append([
        if
            Type =:= supervisor, is_pid(Pid) -> [Pid | pids(Pid)];
            true -> [Pid]
        end
     || {_, Pid, Type, _} <- supervisor:which_children(Top)
    ]).

%% The states of the top supervisor's children in start order; none when it has ended.
quiet(none) -> none;
quiet(Top) ->
    case catch is_quiet(Top) of
        true -> [{Id, state(Pid)} || {Id, Pid, _, _} <- lists:reverse(supervisor:which_children(Top))];
        false -> erlang:yield(), quiet(Top);
        {'EXIT', _} ->
            case is_process_alive(Top) of
                true -> erlang:yield(), quiet(Top);
                false -> none
            end
    end.

is_quiet(Top) ->
    lists:all(
        fun({_, Pid, Type, _}) ->
            Pid =:= undefined orelse
                (is_pid(Pid) andalso is_process_alive(Pid) andalso (Type =:= worker orelse is_quiet(Pid)))
        end,
        supervisor:which_children(Top)
    ).

state(undefined) -> "stopped";
state(Pid) when is_pid(Pid) -> "running".

%% -- the children --

init({Path, {Strategy, Intensity, AutoShutdown, Children}}) ->
    Flags = #{strategy => Strategy, intensity => Intensity, period => 1000000, auto_shutdown => AutoShutdown},
    {ok, {Flags, [child(Path, Child) || Child <- Children]}}.

child(Path, {Id, Restart, Significant, Body}) ->
    Spec = #{id => Id, restart => Restart, significant => Significant, shutdown => infinity},
    case Body of
        leaf -> Spec#{start => {?MODULE, start_leaf, [Path ++ Id]}};
        Tree -> Spec#{start => {?MODULE, start_tree, [Path ++ Id ++ "/", Tree]}, type => supervisor}
    end.

start_tree(Path, Spec) -> supervisor:start_link(?MODULE, {Path, Spec}).

start_leaf(Path) ->
    note("start ", Path),
    case ets:lookup(plans, Path) of
        [{_, [Outcome | Rest]}] -> ets:insert(plans, {Path, Rest});
        _ -> Outcome = ok
    end,
    case Outcome of
        ok -> proc_lib:start_link(erlang, apply, [fun leaf/1, [Path]]);
        fail -> note("end ", Path), {error, failure};
        ignore -> note("end ", Path), ignore
    end.

leaf(Path) ->
    process_flag(trap_exit, true),
    ets:insert(leaves, {Path, self()}),
    proc_lib:init_ack({ok, self()}),
    Reason = receive
        {'EXIT', _, Asked} -> Asked;
        {finish, success} -> normal;
        {finish, failure} -> failure
    end,
    note("end ", Path),
    exit(Reason).

note(What, Path) -> ets:insert(journal, {erlang:unique_integer([monotonic]), What ++ Path}).

%% -- what is told --

json({Answer, Events, States, Running}) ->
    ["[", json(Answer), ",", json(Events), ",", json(States), ",", json(Running), "]"];
json({Id, State}) -> json([Id, State]);
json(none) -> "null";
json([First | _] = String) when is_integer(First) -> [$", String, $"];
json(List) -> ["[", lists:join(",", [json(Item) || Item <- List]), "]"].
