// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token that answers symbol() and decimals() with the bytes that it was made with; with none it refuses.
contract OddToken is ERC20 {
    bytes private symbolAnswer;
    bytes private decimalsAnswer;

    constructor(address to, uint256 supply, bytes memory symbol_, bytes memory decimals_) ERC20("", "") {
        _mint(to, supply);
        (symbolAnswer, decimalsAnswer) = (symbol_, decimals_);
    }

    function symbol() public view override returns (string memory) {
        _answer(symbolAnswer);
    }

    function decimals() public view override returns (uint8) {
        _answer(decimalsAnswer);
    }

    function _answer(bytes memory answer) private pure {
        if (answer.length == 0) revert();
        assembly {
            return(add(answer, 32), mload(answer))
        }
    }
}
