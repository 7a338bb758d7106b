"""Which files of ACEBench are read, and what they must be. Its licence is MIT."""

from __future__ import annotations

from selenite.eval.pinned import PinnedFiles

PROMPTS = "model_inference/prompt_en.py"

_SHA256 = {  # of questions and of answers, by category
    "normal_atom_bool": (
        "59695e59c0d92cd22ec418bfd6f936d0d44a8d6e1fc16e6cb033b12213c57b0b",
        "16c5c8d009d37a0dd5e398838c62857ad2ebae1eb0c0ee1a52eed39a654df86e",
    ),
    "normal_atom_enum": (
        "a2e870f8ba23687ba182a2bb0bdba0a7e02c21b67f3ebc5cc07a71fc2007d31b",
        "bdfec87c5fd4bc3608cb88c53c1d7eacc4e76eb6f73e738451fbff4252292a92",
    ),
    "normal_atom_number": (
        "eba9d748fcd08f142abf053fe2eecc573c98232f218ff412eb9ea5350abca422",
        "a95aca7f2e986280a361f0050d2f8ab02fa24ed5dc1cd2f8ddad5a5279459e8b",
    ),
    "normal_atom_list": (
        "dd1388f66a25f6ff04a6c32abaa63a031ffa33a1aa15a55efe95b0d77ec78b52",
        "d0c47a90f93ad48b505355290750e4a6c307cc59f535ab34d1947a3e60418eb9",
    ),
    "normal_atom_object_short": (
        "eef597c5400e17e1c23a7548505e48139a3648d6e5bd5feabbc9b12fcf7a1a76",
        "27d5cb55dd364c493cc5e2452e208e7a0da8ee55bfbb12133b14250683cdd920",
    ),
    "normal_atom_object_deep": (
        "2df8cd21fcf7388ee4fa0d98f0587292ba4c14b7c8bde059b3dca18ad885d1ec",
        "bf681a1cd84fb286562f3ba57ce9d28946a7cdcf8661b2aad125d69d4beecab7",
    ),
    "normal_single_turn_single_function": (
        "8505410b642c2ba70c2085e29e5bb4879b3ccd0c4a96be4a1fd3c806cbb501e7",
        "e541ad06ecaf49310105209222b9788711cc15d684174276f56224e584b8589d",
    ),
    "normal_single_turn_parallel_function": (
        "7b9b9200cf5224e93f20bf14f076bead8e75d451a7dd6956d346fb1200412235",
        "fac555edad6f61927093504f10bdaef3cf54fbd587affcf3ce52b9f4ec0d3aa0",
    ),
    "normal_similar_api": (
        "f3ae38a6b56ab27c47bd929f16468598636ff76ecc095ff60c41c8b5a9ee843f",
        "0976f8fd3f11b9d5ba3783dc746158aeea3fdb1b34a46b07f3c4c731375a8543",
    ),
    "normal_preference": (
        "61413bbfb5f94b3ad74f348d9f33c8c10b531dfcf6e5429caa3f1a91fa64252d",
        "ed9da0b58446812e8be562fb0594989bd759c249c1cdcd722a9dee5e89ee6644",
    ),
    "normal_multi_turn_user_adjust": (
        "b05dd0fe2afb02270ecbdfddfc7a8b1606339c234d5098749742e79bc51ea8cc",
        "a570117cde521c5d1c16adc2d461b8845c969a3334192bd357dec13cf6657889",
    ),
    "normal_multi_turn_user_switch": (
        "3ed94d09401c53a99c23edc8b60ebfda8d4ae486f9bea19f87b6000a66588cf0",
        "ca0c10778a899fecd3b9767dae7d188d9924a0dbb191e2e6bc0b5808b8baa37e",
    ),
    "special_incomplete": (
        "186f593f8f2be7e709c5878f57d23f401c51e326ffcadcd62f9c5c08c8e34f3b",
        "4792432c4883846e4ab46ea30cd98a78f5d65bef5f5eeae3e31c528985dd31bd",
    ),
    "special_error_param": (
        "3ce0f322934d8a8a96eb8bae945949f61c53b74505ba0d65c4850f98e8ba3bae",
        "5e4c8b8ca768d65372fac1e54c16ef90bf6c8869b8163a00a4afcc47867249b8",
    ),
    "special_irrelevant": (
        "20bb62a9c48b1daf852870096f5d70d53a09a07b8f90a7c09815c6d934e8f41e",
        "cd3f1d66e554869e8870677acc07df78c6ebf8bbba6e600cbb825072181566b8",
    ),
}

CATEGORIES = tuple(_SHA256)
"""Those of one reply each: a dialogue of several turns is a question with a history."""

AGENT_CATEGORIES = ("agent_multi_step", "agent_multi_turn")


def questions_path(category: str) -> str:
    """In the repository."""
    return f"data_all/data_en/data_{category}.json"


def answers_path(category: str) -> str:
    """In the repository."""
    return f"data_all/data_en/possible_answer/data_{category}.json"


FILES = PinnedFiles(
    "ACEBench/ACEBench",
    "e6db74b735ead22c24f27367606a9408573b848f",
    {
        PROMPTS: "d479f487f7e1e77090eb65321f774b13e42efba11cd29717db0973953985a013",
        **{questions_path(name): hashes[0] for name, hashes in _SHA256.items()},
        **{answers_path(name): hashes[1] for name, hashes in _SHA256.items()},
    },
)
