"""Who has which role in one episode: code, or a model by the mixture of the role."""

from __future__ import annotations

import dataclasses
from functools import cached_property

from selenite.agent.episodes.episode import PERSONAS, Agent, agent_of, play
from selenite.agent.episodes.scripted import ScriptedAgent
from selenite.agent.episodes.style import AgentStyle
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.randomness import stream
from selenite.agent.roles.agent import LeavingUser, LlmAgent
from selenite.agent.roles.agent_author import AgentAuthor, LlmAgentAuthor, PlainAgentAuthor
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import Roles
from selenite.agent.roles.session import Session
from selenite.agent.roles.task_author import LlmTaskAuthor, PlainTaskAuthor, TaskAuthor
from selenite.agent.roles.tool_author import LlmToolAuthor, PlainToolAuthor, ToolAuthor
from selenite.agent.roles.tool_world import LlmWorld, TruthReader
from selenite.agent.roles.user import LlmUser
from selenite.agent.roles.wording import Wording
from selenite.agent.tasks.task import Task
from selenite.agent.tools.tool import Tool
from selenite.agent.users.persona import persona
from selenite.agent.users.user import CardUser, User
from selenite.agent.world.domain import Domain
from selenite.agent.world.world import World


class Cast:
    """Who has which role in one episode."""

    def __init__(self, task: Task, roles: Roles, number: int) -> None:
        setting = task.setting
        self.session = Session(setting.seed, "task", number)
        self._roles = roles
        self._number = number
        self._world = setting.open()
        self._title = self._world.domain.subject
        self._task = self._task_author().worded(task)
        self._describe(self._world)

    def play(self) -> Trajectory:
        """The episode. Random numbers are drawn as ``play_script`` draws them."""
        task = self._task
        rng = stream(task.setting.seed, "episode", task.number)
        who, users, spoil = rng.randrange(PERSONAS), rng.getrandbits(32), rng.getrandbits(32)
        style = self._agent_author().introduced(agent_of(task), task, self._world)
        user = self._user(who, users)
        world = self._played_world()
        agent = self._agent(world, style, spoil)
        if isinstance(agent, LlmAgent):
            user = LeavingUser(user, agent)
        trajectory = play(task, world, agent, user, style, who)
        return dataclasses.replace(trajectory, models=dict(sorted(self.session.models.items())))

    @cached_property
    def _wording(self) -> Wording:
        return Wording(self._world.domain)

    def _task_author(self) -> TaskAuthor:
        source = self._roles.of(Role.TASK_AUTHOR, self._number)
        if source is None:
            return PlainTaskAuthor()
        return LlmTaskAuthor(self._title, self._wording, source, self.session)

    def _describe(self, world: World) -> None:
        """Gives the tools that the agent has their descriptions."""
        author, domain = self._tool_author(world.domain), world.domain
        found = {name: author.described(domain.by_tool[name]) for name in self._task.tools}
        if any(found[name] is not domain.by_tool[name] for name in found):
            tools = tuple(found.get(tool.name, tool) for tool in domain.tools)
            world.domain = dataclasses.replace(domain, tools=tools)

    def _tool_author(self, domain: Domain) -> ToolAuthor:
        """The same for all tasks of the domain."""
        setting = self._task.setting
        source = self._roles.of(Role.TOOL_AUTHOR, setting.domain)
        if source is None:
            return PlainToolAuthor()

        def part(tool: Tool) -> Session:
            return Session(setting.seed, "tool", domain.id, tool.name)

        known = self._roles.described
        return LlmToolAuthor(self._title, self._wording, source, self.session, part, known)

    def _agent_author(self) -> AgentAuthor:
        source = self._roles.of(Role.AGENT_AUTHOR, self._number)
        if source is None:
            return PlainAgentAuthor()
        return LlmAgentAuthor(self._wording, source, self.session)

    def _user(self, who: int, seed: int) -> User:
        source = self._roles.of(Role.USER, self._number)
        rng = stream(seed, "user")
        if source is None:
            return CardUser(self._task, persona(who), self._world, rng)
        # A slip in a word would hide from the check that it is the same word.
        person = dataclasses.replace(persona(who), typos=0.0)
        card = CardUser(self._task, person, self._world, rng)
        today = self._world.today
        return LlmUser(card, self._task, person, today, self._wording, source, self.session)

    def _played_world(self) -> World:
        source = self._roles.of(Role.TOOL_WORLD, self._number)
        if source is None:
            return self._world
        return LlmWorld(self._world, self._task.setting.faults, source, self.session)

    def _agent(self, world: World, style: AgentStyle, seed: int) -> Agent:
        source = self._roles.of(Role.AGENT, self._number)
        if source is not None:
            tools = [world.domain.by_tool[name] for name in self._task.tools]
            return LlmAgent(tools, source, self.session)
        script = ScriptedAgent(self._task, style, world, stream(seed, "agent"))
        return TruthReader(script, world) if isinstance(world, LlmWorld) else script
